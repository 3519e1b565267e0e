"""A verb that has done its work neither waits long for MLflow nor fails with it."""

import logging
import os
import threading
from types import SimpleNamespace

import pytest

from segkit.errors import UsageError
from segkit.runs.directory import RunDirectory
from segkit.tracking import errand
from segkit.tracking.brief import BriefRequests
from segkit.tracking.errand import mirror_within


@pytest.fixture
def folder(tmp_path):
    return RunDirectory(tmp_path / "run").create()


@pytest.fixture
def mirror(monkeypatch):
    """Stands in for MLflow: does what the test puts into its list."""
    does = [lambda: None]
    module = SimpleNamespace(mirror=lambda *_, **__: does[0]())
    monkeypatch.setattr(errand.importlib, "import_module", lambda _name: module)
    return does


def test_what_is_copied_is_complete_and_nothing_is_said(folder, mirror, tmp_path, caplog):
    assert mirror_within(10.0, folder, store=tmp_path / "db", experiment="e")
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("error", "told"), [(ConnectionError("server is down"), "server is down"), (UsageError("no drive"), "no drive")]
)
def test_a_failure_is_told_with_the_line_that_mends_it(folder, mirror, tmp_path, caplog, error, told):
    def fail():
        raise error

    mirror[0] = fail
    with caplog.at_level(logging.WARNING):
        assert not mirror_within(10.0, folder, store=tmp_path / "db", experiment="e")
    assert told in caplog.text
    assert f"python -m segkit.sync run={folder.path}" in caplog.text


def test_a_store_that_hangs_is_waited_for_only_so_long(folder, mirror, tmp_path, caplog, monkeypatch):
    gate = threading.Event()
    mirror[0] = lambda: gate.wait(30)
    monkeypatch.setattr(BriefRequests, "_users", 0)
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    with caplog.at_level(logging.WARNING):
        assert not mirror_within(0.1, folder, store=tmp_path / "db", experiment="e")
    assert "has not answered within 0.1 s" in caplog.text
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "20"  # its thread still asks, and must not ask for minutes
    gate.set()
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)

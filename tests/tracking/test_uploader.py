"""Training neither waits for MLflow nor fails with it."""

import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from segkit.runs.directory import RunDirectory
from segkit.tracking import uploader as uploader_module
from segkit.tracking.brief import BriefRequests
from segkit.tracking.record import keep_alone
from segkit.tracking.uploader import Uploader


class Fake:
    """Stands in for `MlflowCopy`; fails where it is told to."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.down = False
        self.gate = threading.Event()
        self.gate.set()

    def _call(self, name: str) -> None:
        self.gate.wait(10)
        if self.down:
            raise ConnectionError("server is down")
        self.calls.append(name)

    def begin(self) -> None:
        self._call("begin")

    def sync(self) -> None:
        self._call("sync")

    def finish(self, status, *, reason="") -> None:
        self._call(f"finish {status} {reason}".strip())


@pytest.fixture
def fake(monkeypatch) -> Fake:
    fake = Fake()
    module = SimpleNamespace(MlflowCopy=lambda *_, **__: fake)
    monkeypatch.setattr(uploader_module.importlib, "import_module", lambda _name: module)
    monkeypatch.setattr(uploader_module, "_FIRST_PAUSE_S", 0.01)
    return fake


@pytest.fixture
def uploader(fake: Fake, tmp_path: Path) -> Uploader:
    return Uploader(RunDirectory(tmp_path), store=tmp_path / "db")


def until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_in_order_and_complete(fake: Fake, uploader: Uploader) -> None:
    uploader.begin()
    until(lambda: fake.calls == ["begin"])  # no points before the journals are cut
    uploader.sync()
    until(lambda: fake.calls == ["begin", "sync"])
    assert uploader.end("FINISHED", reason="done")
    assert fake.calls == ["begin", "sync", "finish FINISHED done"]


def test_caller_never_waits_and_waiting_updates_are_one(fake: Fake, uploader: Uploader) -> None:
    fake.gate.clear()
    uploader.begin()
    for _ in range(1000):
        uploader.sync()
    assert fake.calls == []  # it is still waiting, and the thousand calls have returned
    fake.gate.set()
    assert uploader.end("FINISHED")
    assert fake.calls.count("sync") <= 1


def test_an_outage_is_one_warning_and_all_is_made_up_for_without_being_asked(fake: Fake, uploader, caplog) -> None:
    fake.down = True
    uploader.begin()
    uploader.sync()
    until(lambda: uploader.failures >= 3)
    fake.down = False
    until(lambda: fake.calls == ["begin", "sync"])
    assert uploader.end("FINISHED")  # everything has arrived, though not at the first try
    assert sum("server is down" in r.message for r in caplog.records) == 1
    assert "answers again" in caplog.text
    assert "not complete" not in caplog.text


def test_store_down_to_the_end_is_told_with_what_mends_it(fake: Fake, uploader: Uploader, caplog, tmp_path) -> None:
    fake.down = True
    uploader.begin()
    assert not uploader.end("FINISHED", timeout_s=10.0)
    assert f"python -m segkit.sync run={tmp_path}" in caplog.text


def test_a_store_that_comes_back_at_the_very_end_gets_everything(fake: Fake, uploader: Uploader) -> None:
    fake.down = True
    uploader.begin()
    until(lambda: uploader.failures)
    fake.down = False
    assert uploader.end("FAILED", reason="x")
    assert fake.calls[0] == "begin"
    assert fake.calls[-1] == "finish FAILED x"


def test_hanging_server_holds_the_end_only_so_long(fake: Fake, uploader: Uploader, caplog) -> None:
    fake.gate.clear()
    uploader.begin()
    assert not uploader.end("FINISHED", timeout_s=0.1)
    assert "not complete" in caplog.text
    fake.gate.set()


def test_after_failures_the_end_waits_less(fake: Fake, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(uploader_module, "_LAST_TRY_S", 0.1)
    uploader = Uploader(RunDirectory(tmp_path), store=tmp_path / "db", wait_s=3600.0)
    fake.down = True
    uploader.begin()
    until(lambda: uploader.failures >= 1)
    fake.gate.clear()
    assert not uploader.end("FINISHED")
    fake.gate.set()


def test_two_writers_of_one_copy_wait_for_each_other(fake: Fake, tmp_path: Path, caplog) -> None:
    with keep_alone(tmp_path):
        uploader = Uploader(RunDirectory(tmp_path), store=tmp_path / "db")
        uploader.begin()
        until(lambda: uploader.failures)
        assert fake.calls == []
        assert "The run is in use" in caplog.text
    assert uploader.end("FINISHED")
    assert fake.calls == ["begin", "finish FINISHED"]
    with keep_alone(tmp_path):  # let go of at its end
        pass


def test_no_thread_before_the_beginning(fake: Fake, uploader: Uploader, monkeypatch) -> None:
    assert not uploader._thread.is_alive()
    monkeypatch.setattr(BriefRequests, "_users", 0)
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    uploader.begin()
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "20"
    assert uploader.end("FINISHED")
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ
    assert uploader.end("FAILED")  # a second end finds the thread gone

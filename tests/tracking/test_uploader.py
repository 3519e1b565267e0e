"""Training neither waits for MLflow nor fails with it."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from segkit.runs.directory import RunDirectory
from segkit.tracking import uploader as uploader_module
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

    def begin(self, config, *, tags=None) -> None:
        self._call("begin")

    def sync(self) -> None:
        self._call("sync")

    def end(self, status, *, reason="") -> None:
        self._call(f"end {status} {reason}".strip())


@pytest.fixture
def fake(monkeypatch) -> Fake:
    fake = Fake()
    module = SimpleNamespace(MlflowCopy=lambda *_, **__: fake)
    monkeypatch.setattr(uploader_module.importlib, "import_module", lambda _name: module)
    return fake


@pytest.fixture
def uploader(fake: Fake, tmp_path: Path) -> Uploader:
    return Uploader(RunDirectory(tmp_path), store=tmp_path / "db")


def test_in_order_and_complete(fake: Fake, uploader: Uploader) -> None:
    uploader.begin({})
    uploader.sync()
    uploader.do(lambda copy: copy.calls.append("artifact"))
    assert uploader.end("FINISHED", reason="done")
    assert fake.calls == ["begin", "sync", "artifact", "end FINISHED done"]


def test_caller_never_waits_and_waiting_updates_are_one(fake: Fake, uploader: Uploader) -> None:
    fake.gate.clear()
    start = time.perf_counter()
    uploader.begin({})
    for _ in range(1000):
        uploader.sync()
    assert time.perf_counter() - start < 0.5
    fake.gate.set()
    assert uploader.end("FINISHED")
    assert fake.calls.count("sync") == 1


def test_failures_are_one_warning_and_begin_is_made_up_for(fake: Fake, uploader: Uploader, caplog) -> None:
    fake.down = True
    uploader.begin({})
    for _ in range(3):
        uploader.sync()
        time.sleep(0.02)
    fake.down = False
    uploader.sync()
    assert not uploader.end("FINISHED")  # said: something did not arrive
    assert fake.calls == ["begin", "sync", "end FINISHED"]
    assert sum("server is down" in r.message for r in caplog.records) == 1


def test_hanging_server_holds_the_end_only_so_long(fake: Fake, uploader: Uploader, caplog) -> None:
    fake.gate.clear()
    uploader.begin({})
    assert not uploader.end("FINISHED", timeout_s=0.1)
    assert "not complete" in caplog.text
    fake.gate.set()

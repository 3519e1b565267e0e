"""What the roster makes of errors that come up outside of the loader; R8's own tests kill and hang workers."""

import os
import signal
import time

import pytest

from segkit.data.datamodule import SegmentationDataModule
from segkit.data.layouts import discover
from segkit.data.store import Store
from segkit.errors import DataError


@pytest.fixture
def datamodule(nnunet_raw, tmp_path, plan):
    stored = Store(tmp_path / "cache").prepare_all(discover(nnunet_raw(cases=3)).cases, plan())
    return SegmentationDataModule(stored, [], plan=plan(), recipe=None, seed=0, workers=2)


def test_torchs_words_from_a_signal_handler_are_explained(datamodule):
    """As torch says it where workers are its own children: in the middle of a training step."""
    iterator = iter(datamodule.train_dataloader())
    next(iterator)
    crew = datamodule._roster.crew
    first, second = (worker.pid for worker in crew.workers)
    os.kill(second, signal.SIGKILL)
    while second not in crew.dead:
        time.sleep(0.01)
    for text in (
        f"DataLoader worker (pid {second}) is killed by signal: Killed. ",
        f"DataLoader worker (pid(s) {second}) exited unexpectedly",
    ):
        error = datamodule.explained(RuntimeError(text))
        assert isinstance(error, DataError)
        assert "SIGKILL" in error.what
        assert "loader worker 1" in error.where
    both = datamodule.explained(RuntimeError(f"DataLoader worker (pid(s) {first}, {second}) exited unexpectedly"))
    assert "loader worker 0" in both.where
    assert datamodule.explained(RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed. ")) is None
    assert datamodule.explained(ValueError(f"DataLoader worker (pid {second}) is killed")) is None
    assert datamodule.explained(RuntimeError("shapes differ")) is None


def test_before_any_worker_there_is_nothing_to_explain(datamodule):
    assert datamodule.explained(RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed. ")) is None


def test_workers_go_with_the_last_who_uses_the_loader(datamodule):
    """By reference count, not by the collector: that would take torch five seconds a worker."""
    iterator = iter(datamodule.train_dataloader())
    next(iterator)
    crew = datamodule._roster.crew
    del iterator
    assert crew.dead == {worker.pid for worker in crew.workers}


def test_too_little_shared_memory_means_fewer_workers(datamodule, monkeypatch, caplog):
    for free, workers in ((10**9, 2), (10**6 // 2, 1), (10**5, 0)):
        monkeypatch.setattr("segkit.data.datamodule.free_bytes", lambda free=free: free)
        assert datamodule.train_dataloader().num_workers == workers
        assert ("--shm-size" in caplog.text) == (workers < 2)

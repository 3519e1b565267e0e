"""R8: whatever happens to a loader worker ends, within data.timeout_s, with an error that names it, case and file.

An exception of any kind, one that cannot be pickled, SIGKILL, SIGSEGV, an exit, a hang, a stop. With
data.on_error=skip a case that cannot be read is left out: the same samples come for any number of workers, and more
such cases than data.max_skipped end the run. Worker processes, signals and files are real.
"""

import logging
import multiprocessing
import os
import time
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Callback
from tests.data import conftest
from tests.reliability.faulty_cases import FAULTS, faulty

from segkit.augmentation.recipe import Recipe
from segkit.data.datamodule import SegmentationDataModule
from segkit.data.layouts import discover
from segkit.data.sampling import case_of
from segkit.data.store import Store
from segkit.errors import DataError, exit_code
from segkit.runs.directory import RunDirectory
from segkit.runs.files import read_json
from segkit.runs.resume import find_resume_point
from segkit.workflows import train

pytestmark = pytest.mark.alone

plan = conftest.plan

SEED = 3
TRAIN = 4
HANG_S = 3.0
EXCEPTIONS = {
    "exception": "ValueError: seven legs",
    "local class": "Local: not to be pickled",
    "safetensors": "bad header",
    "base exception": "Unnamed: deep",
    "memory": "MemoryError: no room",
}
DEATHS = {
    "sigkill": "was killed by SIGKILL",
    "sigsegv": "was killed by SIGSEGV",
    "exit": "ended with exit code 3",
}


@pytest.fixture
def stored(nnunet_raw, tmp_path, plan):
    cases = discover(nnunet_raw(cases=TRAIN + 1)).cases
    return Store(tmp_path / "cache").prepare_all(cases, plan())


@pytest.fixture
def module(stored, plan):
    """A data module whose case of sample 3, the first of the second batch, goes wrong."""

    def make(fault=None, *, workers=1, case=None, **kwargs):
        index = case_of(SEED, 3, TRAIN, order="permutation") if case is None else case
        cases = list(stored[:TRAIN])
        if fault is not None:
            cases[index] = faulty(cases[index], fault)
        datamodule = SegmentationDataModule(
            cases, stored[TRAIN:], plan=plan(), recipe=None, seed=SEED, workers=workers, **kwargs
        )
        return datamodule, cases[index]

    return make


def batches_until_the_end(datamodule, *, pause=0.0):
    """What was delivered, and the error that ended it."""
    iterator, found = iter(datamodule.train_dataloader()), []
    time.sleep(pause)
    try:
        for batch in iterator:
            found.append(batch)
            datamodule.consumed(batch)
    except DataError as error:
        return found, error
    return found, None


def assert_named(error, case, *, worker=0):
    assert exit_code(error) == 65
    for word in (case.case_id, str(case.path("image"))):
        assert word in error.where
    assert (f"loader worker {worker}" in error.where) == (worker is not None)


@pytest.mark.parametrize("fault", EXCEPTIONS)
def test_an_exception_of_any_kind_names_case_and_file(module, fault):
    datamodule, case = module(fault)
    found, error = batches_until_the_end(datamodule)
    assert len(found) == 1
    assert_named(error, case)
    assert EXCEPTIONS[fault] in error.why
    alone, case = module(fault, workers=0)
    found, same = batches_until_the_end(alone)
    assert len(found) == 1
    assert_named(same, case, worker=None)
    assert (error.what, error.why, error.mend) == (same.what, same.why, same.mend)
    assert error.where == f"{same.where}, loader worker 0"


@pytest.mark.parametrize(("fault", "pause"), [*((fault, 0.0) for fault in DEATHS), ("sigkill", 1.0)])
def test_a_dead_worker_is_named_with_case_and_file(module, fault, pause):
    """At once or, with a pause, when its earlier batch is asked for."""
    datamodule, case = module(fault)
    found, error = batches_until_the_end(datamodule, pause=pause)
    assert len(found) <= 1  # memory of a batch that it had announced is gone with the worker
    assert_named(error, case)
    assert DEATHS[fault] in error.what
    assert_no_worker_left(datamodule)


@pytest.mark.parametrize(("fault", "workers", "pause"), [("hang", 2, 0.0), ("stop", 1, 1.0)])
def test_a_worker_that_hangs_ends_the_wait(module, fault, workers, pause):
    """A stopped one has announced a batch whose memory it no longer hands over: torch alone waits for ever."""
    datamodule, case = module(fault, workers=workers, timeout_s=HANG_S)
    start = time.monotonic()
    _, error = batches_until_the_end(datamodule, pause=pause)
    assert time.monotonic() - start < 4 * HANG_S
    assert_named(error, case, worker=workers - 1)  # the second batch is the second worker's
    assert f"data.timeout_s={HANG_S:g}" in error.why
    assert_no_worker_left(datamodule)


def assert_no_worker_left(datamodule):
    for worker in datamodule._roster.crew.workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker.pid, 0)
    assert multiprocessing.active_children() == []


def broken(case, name="image"):
    case.path(name).write_bytes(b"")


def same_batches(one, other):
    assert [(b.n, b.case_id) for b in one] == [(b.n, b.case_id) for b in other]
    return all(torch.equal(a.image, b.image) for a, b in zip(one, other, strict=True))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("name", ["image", "locations"])
def test_a_skipped_case_is_replaced_alike_for_any_number_of_workers(module, name, caplog):
    whole, _ = batches_until_the_end(module(workers=0)[0])
    broken(module()[1], name)
    runs = []
    for workers in (0, 1, 4) if name == "image" else (0, 1):
        caplog.clear()
        datamodule, case = module(workers=workers, on_error="skip")
        with caplog.at_level(logging.WARNING, "segkit"):
            found, error = batches_until_the_end(datamodule)
        assert error is None
        (line,) = [record.getMessage() for record in caplog.records]
        assert case.case_id in line
        assert str(case.path(name)) in line
        runs.append(found)
    assert all(same_batches(runs[0], other) for other in runs[1:])
    ours = [(n, c) for batch in runs[0] for n, c in zip(batch.n, batch.case_id, strict=True)]
    before = [(n, c) for batch in whole for n, c in zip(batch.n, batch.case_id, strict=True)]
    assert [n for n, _ in ours] == [n for n, _ in before] == list(range(12))
    assert case.case_id not in {c for _, c in ours}
    # Nothing but the samples of that case has changed.
    assert [c for _, c in before if c != case.case_id] == [
        c for (_, c), (_, was) in zip(ours, before, strict=True) if was != case.case_id
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_more_unreadable_cases_than_allowed_end_the_run_with_their_list(module, stored, workers):
    for case in stored[:2]:
        broken(case)
    _, error = batches_until_the_end(module(workers=workers, on_error="skip", max_skipped=1)[0])
    assert exit_code(error) == 65
    for case in stored[:2]:
        assert case.case_id in error.where
        assert str(case.path("image")) in error.where
    assert "data.max_skipped" in str(error)
    found, error = batches_until_the_end(module(workers=workers, on_error="skip", max_skipped=2)[0])
    assert error is None
    assert len(found) == 4


@pytest.mark.parametrize("fault", ["memory", "sigkill"])
def test_neither_a_crash_nor_a_lack_of_memory_is_skipped(module, fault):
    datamodule, case = module(fault, on_error="skip", max_skipped=TRAIN)
    _, error = batches_until_the_end(datamodule)
    assert_named(error, case)


class Breaks:
    """A transform of a user's, with a fault."""

    def draw(self, rng, *, channels, patch_size):
        return (1.0,) * channels

    def apply(self, image, valid, drawn):
        raise ValueError("seven legs")


def test_an_augmentation_that_fails_names_itself_and_the_cases(module):
    """It works in the training process, so its error arrives as it is; the names stand in its notes."""
    datamodule, _ = module(workers=0)
    datamodule._recipe = Recipe(intensity={"mine": Breaks()})
    batch = next(iter(datamodule.train_dataloader()))
    with pytest.raises(ValueError, match="seven legs") as caught:
        datamodule.on_after_batch_transfer(batch, 0)
    transform, cases = caught.value.__notes__
    assert transform == "transform: mine"
    assert all(case_id in cases for case_id in batch.case_id)


class Arm(Callback):
    """Makes the file at which a fault waits, when the first epoch is done."""

    def __init__(self, path):
        self.path = path

    def on_validation_end(self, *_):
        self.path.touch()


def test_a_run_whose_worker_is_killed_ends_whole_and_goes_on(
    run_config, tmp_path, monkeypatch, end_state, assert_bitwise_equal
):
    train.run(run_config("whole", "data.workers=0"))
    armed = tmp_path / "armed"
    with monkeypatch.context() as patch:
        patch.setattr(train, "prepare_dataset", _with_faults(train.prepare_dataset, armed))
        with pytest.raises(DataError, match="SIGKILL") as caught:
            train.run(run_config("broken", "data.workers=2"), callbacks=[Arm(armed)])
    assert exit_code(caught.value) == 65
    assert "phantom_" in caught.value.where
    assert "image.npy" in caught.value.where
    assert multiprocessing.active_children() == []
    run = RunDirectory(tmp_path / "runs" / "broken")
    status = read_json(run.status)
    assert status["state"] == "failed"
    assert "SIGKILL" in status["reason"]
    assert find_resume_point(run, "must").entry.epoch == 1
    train.run(run_config("broken", "data.workers=2"))
    assert_bitwise_equal(end_state(tmp_path / "runs" / "whole"), end_state(run.path))


def _with_faults(prepare, armed):
    def prepared(*args, **kwargs):
        made = prepare(*args, **kwargs)
        return replace(made, train=tuple(faulty(case, "sigkill", armed=armed) for case in made.train))

    return prepared


def test_every_fault_is_tried():
    assert {*EXCEPTIONS, *DEATHS, "hang", "stop"} == set(FAULTS)

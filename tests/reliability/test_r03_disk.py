"""R3: a full, failing or read-only disk costs the checkpoint that is being written, and nothing else.

The earlier ones stay byte-identical, nothing half-written stays, training goes on with a warning that names path,
bytes needed and bytes free, and the third failure in a row ends it with 74. Too little room refuses to start.
"""

import errno
import gc
import json
import logging
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from tests.callbacks.toy import train
from tests.reliability.borders import faulty, forked, spread
from tests.reliability.test_r02_write_boundaries import save, weight_of

from segkit.callbacks.checkpointing import Checkpointing
from segkit.errors import ExitCode, Preempted, StorageError, exit_code
from segkit.runs.checkpoints import newest_valid, sweep, write_checkpoint
from segkit.runs.identity import claim
from segkit.runs.manifest import Entry, checkpoint_path, checkpoint_steps
from segkit.tracking.journal import Journal, read_rows
from segkit.workflows.train import run

pytestmark = pytest.mark.alone

MB = 10**6


def contents(root: Path) -> dict[str, bytes]:
    """Every file of every checkpoint."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.glob("step-*/*")}


def write(root: Path, step: int = 9, *, numbers: int = 3) -> None:
    entry = Entry(step=step, n=step, epoch=1)
    weights = {"w": torch.arange(float(numbers))}
    write_checkpoint(checkpoint_path(root, step), entry, model=weights, optimizer=weights, state={"a": 1})


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT], ids=errno.errorcode.get)
def test_a_fault_at_any_border_costs_the_new_checkpoint_only(
    tmp_path: Path, size, monkeypatch, number: int, lasting: bool
) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)
    before = tmp_path / "before"
    claim(before)
    for step in (1, 2):
        save(before, step, score=0.5)
    earlier = contents(before)
    spare = shutil.copytree(before, tmp_path / "spare")
    points = spread(lambda: write(spare), calls=size(6, 10**6), byte_distance=size(2000, 20))
    removes = number != errno.EROFS
    failed, numbers = 0, set()
    for border in points:
        root = shutil.copytree(before, tmp_path / f"fault-{border}")
        try:
            with faulty(border, number, lasting=lasting, removes=removes):
                write(root)
        except OSError as error:
            failed += 1
            numbers.add(error.errno)
        after = contents(root)
        assert {name: after[name] for name in earlier} == earlier, border
        assert weight_of_step(root) in {2, 9}, border
        hidden = [path.name for path in root.iterdir() if path.name.startswith(".")]
        assert hidden == [] or (lasting and not removes), border
        sweep(root)
        save(root, 10, score=0.4)
        assert weight_of(newest_valid(root)) == 10
        shutil.rmtree(root)
    assert failed >= 6
    assert numbers == {number}


def weight_of_step(root: Path) -> int:
    newest = newest_valid(root)
    assert newest is not None
    return int(newest.name.removeprefix("step-"))


def test_the_systems_own_answer_comes_through_torch_and_safetensors(tmp_path: Path) -> None:
    """A file too large, by the kernel: safetensors says it in Rust, torch in C++; both lose the number on the way."""
    write(tmp_path, 1)
    earlier = contents(tmp_path)

    def limited(limit: int) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with pytest.raises(OSError, match="File too large") as refused:
            write(tmp_path, 2, numbers=20_000)
        assert refused.value.errno == errno.EFBIG

    for limit in (1, 10_000, 79_000, 80_200):  # the weights have 80 088 bytes, the optimizer's file more
        assert forked(lambda limit=limit: limited(limit)) == 0
        assert contents(tmp_path) == earlier
        assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


class FillsTheDisk(Callback):
    """Leaves `free` bytes of the drive at the end of one step, and gives the room back at the end of another."""

    def __init__(self, folder: Path, *, at: int, until: int, free: int = 0) -> None:
        self.filler, self.at, self.until, self.free = folder / "filler", at, until, free

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == self.at:
            fill(self.filler, free=self.free)
        if trainer.global_step == self.until:
            self.filler.unlink()


def fill(file: Path, *, free: int) -> None:
    with file.open("wb", buffering=0) as filler:
        while (room := shutil.disk_usage(file.parent).free - free) > 0:
            try:
                filler.write(bytes(min(room, MB)))
            except OSError:
                return


@pytest.fixture
def small_drive(tmp_path: Path) -> Iterator[Path]:
    """A real drive of 20 MB."""
    folder = tmp_path / "drive"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("a small drive is mounted by root only")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=20m", "tmpfs", folder], check=False).returncode:
        pytest.skip("this system lets root mount nothing")
    yield folder
    for _ in range(50):  # a process that has just ended may still be leaving it
        gc.collect()
        if subprocess.run(["umount", folder], check=False, capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    links = [path for path in Path("/proc").glob("[0-9]*/fd/*") if str(path.resolve()).startswith(str(folder))]
    subprocess.run(["umount", "--lazy", folder], check=True)  # else no later test run could clear its folders
    raise AssertionError(f"the drive is still held: {[(str(path), str(path.resolve())) for path in links]}")


def test_a_run_outlives_a_full_drive_and_ends_as_if_it_had_never_been(
    run_config, end_state, assert_bitwise_equal, small_drive: Path, caplog
) -> None:
    often = ("checkpoint.every_s=1e-9",)
    expected = end_state(run(run_config("whole", *often)).directory.path)
    config = run_config("full", *often, f"paths.runs={small_drive}")
    folder = small_drive / "full"
    seen: dict[str, bytes] = {}

    class Looks(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
            if trainer.global_step == 2:
                seen.update(contents(folder / "checkpoints"))
            if trainer.global_step == 4:  # two checkpoints, of steps 3 and 4, could not be written
                assert contents(folder / "checkpoints") == seen

    with caplog.at_level(logging.WARNING, logger="segkit"):
        state = end_state(run(config, callbacks=[Looks(), FillsTheDisk(small_drive, at=3, until=5)]).directory.path)
    assert seen
    assert_bitwise_equal(expected, state)
    warnings = [r.getMessage() for r in caplog.records if "could not be written" in r.getMessage()]
    assert [re.search(r"step-\d+", text)[0] for text in warnings] == ["step-00000003", "step-00000004"]
    for text in warnings:
        assert str(folder) in text
        assert re.search(r"needs about [\d.]+ MB, [\d.]+ MB are free", text)
    assert [p.name for p in (folder / "checkpoints").iterdir() if p.name.startswith(".")] == []


def test_the_third_failure_in_a_row_ends_with_74_and_the_run_goes_on_when_there_is_room(
    run_config, end_state, small_drive: Path
) -> None:
    config = run_config("ended", "checkpoint.every_s=1e-9", f"paths.runs={small_drive}")
    with pytest.raises(StorageError, match="3 checkpoints in a row") as ended:
        run(config, callbacks=[FillsTheDisk(small_drive, at=3, until=99)])
    assert ended.value.exit_code == ExitCode.IO
    folder = small_drive / "ended"
    assert checkpoint_steps(folder / "checkpoints") == [1, 2]
    with pytest.raises(OSError, match=f"No space left on device: '{folder}") as full:
        run(config)
    assert exit_code(full.value) == ExitCode.IO
    (small_drive / "filler").unlink()
    run(config)
    assert end_state(folder)["step"] == 6


def test_too_little_room_refuses_to_start(run_config, small_drive: Path) -> None:
    fill(small_drive / "filler", free=2 * MB)
    with pytest.raises(StorageError, match=r"too little room .*[\s\S]*are free") as refused:
        run(run_config("refused", f"paths.runs={small_drive}", "paths.cache=/tmp"))
    assert refused.value.exit_code == ExitCode.IO
    assert checkpoint_steps(small_drive / "refused" / "checkpoints") == []


def test_a_limit_of_the_process_is_a_full_disk(tmp_path: Path) -> None:
    """Without root: the second epoch may write no file beyond 1 kB."""
    train(tmp_path, epochs=1)
    earlier = contents(tmp_path)

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(StorageError, match="3 checkpoints in a row"):
            train(tmp_path, epochs=9, resume=newest_valid(tmp_path))

    assert forked(limited) == 0
    assert contents(tmp_path) == earlier


def test_what_was_measured_while_the_disk_was_full_is_written_later(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "metrics.jsonl", tmp_path / "timings.jsonl")
    journal.metrics({"a": 0.5}, n=1, step=1, epoch=1)
    with faulty(0, errno.ENOSPC, lasting=True):
        for n in (2, 3):
            journal.metrics({"a": 0.5}, n=n, step=n, epoch=1)
        with pytest.raises(OSError, match="No space"):  # no checkpoint may count on rows that are not there
            journal.sync()
    assert [row.n for row in read_rows(tmp_path / "metrics.jsonl")] == [1]
    journal.metrics({"a": 0.5}, n=4, step=4, epoch=1)
    assert [row.n for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]
    journal.sync()


def test_a_journal_that_cannot_be_written_counts_as_a_checkpoint_that_cannot(tmp_path: Path, caplog) -> None:
    journal = Journal(tmp_path / "metrics.jsonl", tmp_path / "timings.jsonl")
    (tmp_path / "c").mkdir()
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")

    class Measures(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
            journal.metrics({"a": 1.0}, n=trainer.global_step, step=trainer.global_step, epoch=1)

    checkpointing = Checkpointing(tmp_path / "c", every_s=None, before_save=journal.sync)
    with pytest.raises(StorageError, match="3 checkpoints in a row"):
        train(tmp_path / "c", epochs=9, callbacks=(Measures(),), checkpointing=checkpointing)
    assert checkpoint_steps(tmp_path / "c") == []
    assert sum("wait in memory" in record.message for record in caplog.records) == 1


def test_a_status_that_cannot_be_written_hides_no_other_end(run_config, stop_after, small_drive: Path) -> None:
    """Preempted on a drive that is full but for the checkpoint: 75, and the state is there."""
    config = run_config("stopped", f"paths.runs={small_drive}")

    class Full(Callback):
        def on_exception(self, *_: object) -> None:
            fill(small_drive / "filler", free=0)

    with pytest.raises(Preempted):
        run(config, callbacks=[stop_after(2), Full()])
    assert weight_of_step(small_drive / "stopped" / "checkpoints") == 2
    assert json.loads((small_drive / "stopped" / "STATUS.json").read_text())["state"] == "running"

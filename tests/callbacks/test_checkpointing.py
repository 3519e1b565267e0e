"""A run that was stopped at any step and resumed ends bitwise where the uninterrupted one ends."""

import errno
from pathlib import Path

import pytest
import torch
from tests.callbacks.toy import BATCH, KillAfter, Killed, ToyData, ToyModule, train

from segkit.callbacks.checkpointing import Checkpointing, DirectoryCheckpointIO
from segkit.callbacks.weight_averaging import WeightAveraging
from segkit.errors import ExitCode, Preempted, StorageError, UsageError
from segkit.runs import checkpoints as format_
from segkit.runs.checkpoints import newest_valid, read_checkpoint
from segkit.runs.index import best, last, load_index
from segkit.runs.manifest import MODEL, checkpoint_path, checkpoint_steps
from segkit.types import Batch

STEPS = 8  # two epochs of four


def everything(root: Path) -> dict[str, object]:
    """All that the last checkpoint of a finished run holds, except the wall clock."""
    contents = read_checkpoint(checkpoint_path(root, STEPS))
    return {
        "model": contents.model,
        "training": contents.training,
        "optimizer": contents.optimizer,
        "schedule": contents.state["lr_schedulers"],
        "loops": contents.state["loops"],
        "entry": contents.entry.to_json(),
    }


def assert_equal(a: object, b: object, where: str = "") -> None:
    """Equal to the bit, through nested containers."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def averaging(on: bool) -> tuple[WeightAveraging, ...]:
    return (WeightAveraging(0.9),) if on else ()


@pytest.mark.parametrize("ema", [False, True], ids=["plain", "averaged"])
@pytest.mark.parametrize("settings", [{}, {"accumulate_grad_batches": 2}], ids=str)
def test_stopped_after_any_step_and_resumed_is_bitwise_the_same(tmp_path: Path, ema: bool, settings: dict) -> None:
    whole = tmp_path / "whole"
    accumulate = settings.get("accumulate_grad_batches", 1)
    full, _ = train(whole, callbacks=averaging(ema), data=ToyData(4 * accumulate), **settings)
    expected = everything(whole)
    for step in range(1, STEPS):
        root = tmp_path / f"stop{step}"
        checkpointing = Checkpointing(root, every_s=None)
        # One more step after the checkpoint, if none is written there: it must leave no trace.
        killer = KillAfter(checkpointing, save_step=step, die_step=step if step % 4 == 3 else step + 1)
        with pytest.raises(Killed):
            train(
                root,
                callbacks=(*averaging(ema), killer),
                checkpointing=checkpointing,
                data=ToyData(4 * accumulate),
                **settings,
            )
        assert max(checkpoint_steps(root)) == step
        module, trainer = train(
            root, callbacks=averaging(ema), resume=newest_valid(root), data=ToyData(4 * accumulate), **settings
        )
        assert trainer.global_step == STEPS
        assert_equal(dict(module.state_dict()), dict(full.state_dict()), f"stop {step}")
        assert_equal(everything(root), expected, f"stop {step}")


def test_resumed_twice_and_within_an_epoch_trains_each_sample_once(tmp_path: Path) -> None:
    seen: list[int] = []

    class Watched(ToyModule):
        def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
            seen.extend(batch.n)
            return super().training_step(batch, batch_idx)

    resume = None
    for step in (1, 3, 6):
        checkpointing = Checkpointing(tmp_path, every_s=None)
        killer = KillAfter(checkpointing, save_step=step, die_step=step)
        with pytest.raises(Killed):
            train(tmp_path, callbacks=(killer,), checkpointing=checkpointing, module=Watched(), resume=resume)
        resume = newest_valid(tmp_path)
    train(tmp_path, module=Watched(), resume=resume)
    assert seen == list(range(STEPS * BATCH))


def test_score_and_cases_belong_to_the_weights_of_the_checkpoint(tmp_path: Path) -> None:
    train(tmp_path, module=ToyModule(scores=[0.7, 0.6]))
    first, second = load_index(tmp_path)
    assert (first.epoch, first.step, first.n, first.score) == (1, 4, 4 * BATCH, pytest.approx(0.7))
    assert first.validated
    assert set(first.per_case) == {"case0", "case1"}
    assert best([first, second]) == first
    assert last([first, second]) == second


def test_checkpoint_within_an_epoch_has_no_score(tmp_path: Path) -> None:
    checkpointing = Checkpointing(tmp_path, every_s=None)
    with pytest.raises(Killed):
        train(tmp_path, callbacks=(KillAfter(checkpointing, save_step=6, die_step=6),), checkpointing=checkpointing)
    entry = load_index(tmp_path)[-1]
    assert (entry.step, entry.epoch, entry.validated, entry.score) == (6, 1, False, None)
    assert entry.validated_n == 4 * BATCH


def test_nan_score_wins_nothing(tmp_path: Path) -> None:
    train(tmp_path, module=ToyModule(scores=[0.1, float("nan")]))
    assert best(load_index(tmp_path)).epoch == 1


def test_time_between_checkpoints_bounds_what_is_lost(tmp_path: Path) -> None:
    train(tmp_path, epochs=1, checkpointing=Checkpointing(tmp_path, every_s=0.0, keep=10))
    assert checkpoint_steps(tmp_path) == [1, 2, 3, 4]


@pytest.mark.parametrize("at", [2, 4], ids=["within an epoch", "on its last batch"])
def test_preemption_saves_and_ends_with_75(tmp_path: Path, at: int) -> None:
    checkpointing = Checkpointing(tmp_path, every_s=None)

    class Signal(KillAfter):
        def on_train_batch_end(self, trainer, *_) -> None:
            if trainer.global_step == at:
                self.checkpointing.preempt("SIGTERM")

    with pytest.raises(Preempted) as stop:
        train(tmp_path, callbacks=(Signal(checkpointing, save_step=None, die_step=99),), checkpointing=checkpointing)
    assert stop.value.exit_code == ExitCode.PREEMPTED
    assert checkpoint_steps(tmp_path) == [at]
    train(tmp_path, resume=newest_valid(tmp_path))
    train(tmp_path / "whole")
    assert_equal(everything(tmp_path), everything(tmp_path / "whole"))


def test_flipped_bit_is_refused_on_load(tmp_path: Path) -> None:
    train(tmp_path, epochs=1)
    path = checkpoint_path(tmp_path, 4)
    content = bytearray((path / MODEL).read_bytes())
    content[-3] ^= 1
    (path / MODEL).write_bytes(content)
    with pytest.raises(StorageError, match=r"model\.safetensors"):
        DirectoryCheckpointIO().load_checkpoint(path, weights_only=True)


def test_full_disk_leaves_earlier_checkpoints_and_ends_after_three(tmp_path: Path, monkeypatch, caplog) -> None:
    train(tmp_path, epochs=1)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def full(*_, **__) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(format_, "save_file", full)
    with pytest.raises(StorageError) as stop:
        train(tmp_path, epochs=9, resume=newest_valid(tmp_path))
    assert stop.value.exit_code == ExitCode.IO
    assert sum("could not be written" in r.message for r in caplog.records) == 2
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_lightnings_own_step_limit_is_refused_since_it_does_not_resume(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="max_epochs instead"):
        train(tmp_path, max_steps=3)


def test_batch_that_is_not_counted_before_the_save_is_a_bug(tmp_path: Path) -> None:
    class Late(ToyData):
        def consumed(self, batch: Batch) -> None:
            pass

    with pytest.raises(RuntimeError, match="consumed before"):
        train(tmp_path, data=Late(), checkpointing=Checkpointing(tmp_path, every_s=0.0))

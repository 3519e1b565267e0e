"""A host that learns late of a left-out step ends, to the bit, where one ends that waits at every step."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from tests.callbacks.poison import HOWS, How, Poison
from tests.callbacks.test_nonfinite_guard import Rows, Skipping, assert_same, float16, state
from tests.callbacks.toy import ToyData, train
from torch import nn

from segkit.callbacks.checkpointing import Checkpointing
from segkit.callbacks.divergence import Limits
from segkit.callbacks.late_verdict import SchedulePlace, settle_all
from segkit.callbacks.nonfinite_guard import NonFiniteGuard
from segkit.callbacks.weight_averaging import WeightAveraging
from segkit.errors import Diverged
from segkit.runs.checkpoints import read_checkpoint
from segkit.runs.index import load_index
from segkit.runs.manifest import checkpoint_path

LEFT_OUT = {
    "first, last and two in a row": [0, 6, 8],
    "first of all": [0],
    "in the middle": [4],
    "last of an epoch": [6],
    "two in a row": [2, 4],
    "first two": [0, 2],
}
"""Positions of the batches; an epoch has four of two samples."""
PLACES = [
    pytest.param(at, marks=() if i == 0 else pytest.mark.slow, id=k) for i, (k, at) in enumerate(LEFT_OUT.items())
]
OPTIMIZERS = {
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=0.05, fused=True),
    "sgd": lambda weights: torch.optim.SGD(
        weights, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01, fused=True
    ),
}


class Fused(Skipping):
    """With batch normalisation, and a schedule that counts by itself."""

    def __init__(self, optimizer: str) -> None:
        super().__init__((nn.BatchNorm1d(8),))
        self.optimizer = optimizer

    def configure_optimizers(self) -> Any:
        optimizer = OPTIMIZERS[self.optimizer](self.net.parameters())
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Known(Callback):
    """Notes after which steps the host already knew what had become of them."""

    def __init__(self, watch: NonFiniteGuard) -> None:
        self.watch, self.steps = watch, []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if self.watch._verdict is None:
            self.steps.append(trainer.global_step)


class SaveAt(Callback):
    def __init__(self, checkpointing: Checkpointing, step: int) -> None:
        self.checkpointing, self.step = checkpointing, step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.checkpointing.save_now = trainer.global_step == self.step


def life(
    root: Path, at: Collection[int], *, late: bool, how: How = "image", optimizer: str = "adamw", **settings: Any
) -> dict[str, Any]:
    """One run with a checkpoint after step 2 besides those of its epochs; all that it leaves behind."""
    watch = NonFiniteGuard(root / "bad", Rows(), limits=Limits(share=1.0), every_n_steps=3, late=late)
    checkpointing = Checkpointing(root / "checkpoints", every_s=None, keep=9)
    known = Known(watch)
    average = WeightAveraging(0.9)
    module, trainer = train(
        root,
        module=Fused(optimizer),
        callbacks=(Poison(at, how), average, watch, known, SaveAt(checkpointing, 2)),
        checkpointing=checkpointing,
        gradient_clip_val=0.5,
        **settings,
    )
    found: dict[str, Any] = {
        "tensors": state(module, trainer) | {f"average/{k}": v for k, v in average._average.items()},
        "updates": average.state_dict(),
        "book": watch.state_dict(),
        "rows": watch.ledger.journal.rows,
        "files": sorted(path.name for path in (root / "bad").glob("*")),
        "known": known.steps,
    }
    for step in (entry.step for entry in load_index(root / "checkpoints")):
        contents = read_checkpoint(checkpoint_path(root / "checkpoints", step))
        found[f"step {step}"] = {**contents.model, **{f"raw/{k}": v for k, v in contents.training.items()}}
        found[f"step {step} schedule"] = contents.state["lr_schedulers"]
        found[f"step {step} callbacks"] = contents.state["callbacks"]
    return found


def assert_same_life(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        if key == "tensors" or (key.startswith("step ") and len(key.split()) == 2):
            assert_same(value, other[key])
        elif key != "known":
            assert value == other[key], key


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("at", PLACES)
def test_late_is_at_once_to_the_bit(
    tmp_path: Path, at: list[int], optimizer: str, caplog: pytest.LogCaptureFixture
) -> None:
    once = life(tmp_path / "once", at, late=False, optimizer=optimizer)
    said = [record.getMessage() for record in caplog.records]
    caplog.clear()
    late = life(tmp_path / "late", at, late=True, optimizer=optimizer)
    assert_same_life(once, late)
    assert once["book"]["skipped"] == len(at)
    assert [record.getMessage() for record in caplog.records] == said
    assert once["known"] == list(range(1, 9))
    assert late["known"] == [3, 4, 6, 8]  # each third step is logged, the fourth and the eighth end an epoch


@pytest.mark.parametrize("how", ["image", *(pytest.param(how, marks=pytest.mark.slow) for how in HOWS[1:])])
def test_so_it_is_with_accumulated_batches_whichever_is_bad(tmp_path: Path, how: How) -> None:
    """Steps of two batches: the first one's first batch, the second one's second, both of the last."""
    at, lives = [0, 6, 12, 14], []
    for late in (False, True):
        settings: dict[str, Any] = {"accumulate_grad_batches": 2, "data": ToyData(batches=4)}
        lives.append(life(tmp_path / str(late), at, late=late, how=how, **settings))
    assert_same_life(*lives)
    assert lives[0]["book"]["skipped"] == 3
    assert lives[0]["files"] == ["step-00000001.pt", "step-00000002.pt", "step-00000004.pt"]
    for late in ("False", "True"):
        kept = [torch.load(tmp_path / late / "bad" / name, weights_only=True)["n"] for name in lives[0]["files"]]
        assert kept == [[0, 1], [6, 7], [12, 13]]


def test_a_run_ends_by_its_limits_with_the_same_words(tmp_path: Path) -> None:
    said = []
    for late in (False, True):
        watch = NonFiniteGuard(tmp_path / "bad", Rows(), limits=Limits(in_a_row=2), every_n_steps=100, late=late)
        settings: dict[str, Any] = {"callbacks": (Poison(range(6, 99)), watch), "data": ToyData(batches=20)}
        with pytest.raises(Diverged, match="optimizer step 6, cases 6, 7, 8, 9") as ended:
            train(tmp_path / str(late), module=Fused("sgd"), **settings)
        said.append((str(ended.value), watch.ledger.journal.rows))
    assert said[0] == said[1]
    assert said[0][1] == [(6, "train/skipped_steps", 3.0)]


@pytest.mark.parametrize(("fused", "plugins"), [(False, ()), (True, (float16(),))], ids=["plain", "loss scaler"])
def test_what_cannot_take_the_flag_is_judged_at_once(tmp_path: Path, fused: bool, plugins: tuple[Any, ...]) -> None:
    watch = NonFiniteGuard(tmp_path / "bad", Rows(), limits=Limits(share=1.0), every_n_steps=100, late=True)
    known = Known(watch)
    train(tmp_path, module=Skipping(fused=fused), callbacks=(Poison([2], "loss"), watch, known), plugins=plugins)
    assert known.steps == list(range(1, 9))
    assert watch.ledger.skipped == 1


def test_a_resumed_run_that_was_late_goes_on_to_the_bit(tmp_path: Path) -> None:
    def ended(root: Path, *, epochs: int, resume: Path | None = None) -> dict[str, torch.Tensor]:
        watch = NonFiniteGuard(root / "bad", Rows(), limits=Limits(share=1.0), every_n_steps=100, late=True)
        callbacks = (Poison([0, 6, 10]), WeightAveraging(0.9), watch)
        return state(*train(root, module=Fused("sgd"), callbacks=callbacks, epochs=epochs, resume=resume))

    whole = ended(tmp_path / "whole", epochs=2)
    ended(tmp_path / "halves", epochs=1)
    assert_same(whole, ended(tmp_path / "halves", epochs=2, resume=checkpoint_path(tmp_path / "halves", 4)))


@pytest.mark.parametrize(
    "make",
    [
        lambda each: torch.optim.lr_scheduler.CosineAnnealingLR(each, 9),
        lambda each: torch.optim.lr_scheduler.LambdaLR(each, lambda step: 1 / (1 + step)),
        lambda each: torch.optim.lr_scheduler.OneCycleLR(each, 0.1, total_steps=20),
        lambda each: torch.optim.lr_scheduler.SequentialLR(
            each,
            [torch.optim.lr_scheduler.ConstantLR(each, 0.1, 2), torch.optim.lr_scheduler.ExponentialLR(each, 0.9)],
            [2],
        ),
    ],
    ids=["cosine", "lambda", "one cycle", "sequential"],
)
def test_any_schedule_goes_back_to_its_place(make: Any) -> None:
    """Two steps, one that is put back, two more: the rates of four steps."""

    def schedule() -> Any:
        return make(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9))

    def step(schedule: Any) -> tuple[float, float, int]:
        schedule.optimizer.step()
        schedule.step()
        group = schedule.optimizer.param_groups[0]
        return group["lr"], group["momentum"], schedule.last_epoch

    plain, undone = schedule(), schedule()
    expected = [step(plain) for _ in range(4)]
    found = [step(undone), step(undone)]
    place = SchedulePlace([undone.optimizer], [undone])
    assert step(undone) == expected[2]
    place.put_back()
    assert [*found, step(undone), step(undone)] == expected


def test_settling_without_anything_unsettled_is_nothing(tmp_path: Path) -> None:
    watch = NonFiniteGuard(tmp_path / "bad", Rows(), late=True)
    _, trainer = train(tmp_path, module=Skipping(fused=True), callbacks=(watch,), epochs=1)
    settle_all(trainer)
    assert watch.ledger.skipped == 0

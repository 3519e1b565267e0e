"""A step that is not finite leaves nothing behind but a count, a line and a file."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from tests.callbacks.poison import HOWS, How, LeaveOut, Poison
from tests.callbacks.toy import Killed, ToyData, ToyModule, train
from torch import nn

from segkit.callbacks.checkpointing import Checkpointing
from segkit.callbacks.divergence import Limits
from segkit.callbacks.nonfinite_guard import NonFiniteGuard
from segkit.callbacks.skip_ledger import METRIC, SAVED
from segkit.callbacks.weight_averaging import WeightAveraging
from segkit.errors import Diverged, ExitCode, exit_code
from segkit.runs.checkpoints import read_checkpoint
from segkit.runs.index import load_index
from segkit.runs.manifest import checkpoint_path


class Rows:
    """A journal in memory."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, str, float]] = []

    def metrics(self, values: dict[str, float], *, n: int, step: int, epoch: int) -> None:
        self.rows += [(step, key, value) for key, value in values.items()]


class Skipping(ToyModule):
    """A toy that reads `skipped_step` as SegmentationModule does; `layers` go before its last one."""

    skipped_step = False

    def __init__(self, layers: tuple[nn.Module, ...] = (), fused: bool = False) -> None:
        super().__init__()
        self.net = nn.Sequential(*list(self.net)[:-1], *layers, self.net[-1])
        self.fused = fused

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        if not self.skipped_step:
            super().lr_scheduler_step(scheduler, metric)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=0.05, fused=self.fused)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Die(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise Killed


def float16() -> MixedPrecision:
    """Float16 with a scaler, which Lightning gives to a CPU only when it is handed over whole."""
    return MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))


def guard(folder: Path, **settings: Any) -> NonFiniteGuard:
    return NonFiniteGuard(folder, Rows(), **{"limits": Limits(share=1.0), **settings})


def state(module: ToyModule, trainer: Trainer) -> dict[str, torch.Tensor]:
    """Weights, statistics, moments, rate and place in the schedule."""
    moments = trainer.optimizers[0].state_dict()["state"]
    schedule = trainer.lr_scheduler_configs[0].scheduler
    return {
        **module.state_dict(),
        **{f"{i}/{name}": torch.as_tensor(value) for i, each in moments.items() for name, value in each.items()},
        "lr": torch.tensor(trainer.optimizers[0].param_groups[0]["lr"], dtype=torch.float64),
        "last_epoch": torch.tensor(schedule.last_epoch),
    }


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_a_finite_run_is_the_same_to_the_bit_with_and_without_it(tmp_path: Path) -> None:
    watch = guard(tmp_path / "bad")
    with_it = state(*train(tmp_path / "a", module=Skipping(), callbacks=(watch,), gradient_clip_val=0.1))
    without = state(*train(tmp_path / "b", module=Skipping(), gradient_clip_val=0.1))
    assert_same(with_it, without)
    assert (watch.ledger.skipped, watch.ledger.journal.rows, (tmp_path / "bad").exists()) == (0, [], False)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("how", HOWS)
def test_the_run_goes_on_as_if_the_step_had_not_been(tmp_path: Path, how: How, fused: bool) -> None:
    watch, data, at = guard(tmp_path / "bad"), ToyData(), [0, 6]  # the first step of all, and the last of an epoch
    poisoned = state(
        *train(tmp_path / "a", module=Skipping(fused=fused), callbacks=(Poison(at, how), watch), data=data)
    )
    left_out = state(*train(tmp_path / "b", module=Skipping(fused=fused), callbacks=(LeaveOut(at),)))
    assert_same(poisoned, left_out)
    assert watch.ledger.skipped == 2
    assert (data.n, int(poisoned["last_epoch"])) == (16, 6)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("second", [0, 2])
def test_accumulated_batches_are_left_out_together_and_all_named(
    tmp_path: Path, how: How, second: int, caplog: pytest.LogCaptureFixture
) -> None:
    watch, at = guard(tmp_path / "bad"), [8 + second]  # step 2 of 4 uses samples 8 to 11
    settings: dict[str, Any] = {"accumulate_grad_batches": 2, "data": ToyData(batches=8), "epochs": 1}
    poisoned = train(tmp_path / "a", module=Skipping(), callbacks=(Poison(at, how), watch), **settings)
    settings["data"] = ToyData(batches=8)
    left_out = train(tmp_path / "b", module=Skipping(), callbacks=(LeaveOut(at),), **settings)
    assert poisoned[1].global_step == 4
    assert_same(state(*poisoned), state(*left_out))
    assert watch.ledger.skipped == 1
    offending, beside = ("8, 9", "10, 11") if second == 0 else ("10, 11", "8, 9")
    assert f"cases {offending} (n " in caplog.text
    assert f"its step also used cases {beside}" in caplog.text


def test_running_statistics_are_put_back(tmp_path: Path) -> None:
    """A NaN image has gone through batch normalisation before anything could be seen of it."""
    layers = lambda: (nn.BatchNorm1d(8),)  # noqa: E731
    poisoned = state(*train(tmp_path / "a", module=Skipping(layers()), callbacks=(Poison([4]), guard(tmp_path / "x"))))
    left_out = state(*train(tmp_path / "b", module=Skipping(layers()), callbacks=(LeaveOut([4]),)))
    assert bool(poisoned["net.3.running_mean"].isfinite().all())
    assert_same(poisoned, left_out)


def test_the_average_of_the_weights_stands_still(tmp_path: Path) -> None:
    callbacks = (Poison([0, 2, 4, 6]), WeightAveraging(0.9), guard(tmp_path / "bad"))
    module, _ = train(tmp_path / "a", module=Skipping(), callbacks=callbacks, epochs=1)
    fresh = Skipping().state_dict()
    assert_same(module.state_dict(), fresh)
    assert_same(read_checkpoint(checkpoint_path(tmp_path / "a", 4)).model, fresh)
    assert callbacks[1].state_dict() == {"updates": 0}


def test_told_once_an_interval_and_once_at_the_end_of_an_epoch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch = guard(tmp_path / "bad", every_n_steps=3)
    train(tmp_path / "a", module=Skipping(), callbacks=(Poison([0, 2, 6, 12]), watch))  # steps 1, 2, 4 and 7
    assert watch.ledger.journal.rows == [(3, METRIC, 2.0), (4, METRIC, 3.0), (8, METRIC, 4.0)]
    told = [record.getMessage() for record in caplog.records if record.name == "segkit.callbacks.skip_ledger"]
    assert [message.splitlines()[0] for message in told] == [
        "Left out 2 of the last optimizer steps (2 of 3 in this run): loss or gradient not finite.",
        "Left out 1 of the last optimizer steps (3 of 4 in this run): loss or gradient not finite.",
        "Left out 1 of the last optimizer steps (4 of 8 in this run): loss or gradient not finite.",
    ]
    pattern = (
        r"step 2: loss nan; cases 2, 3 \(n 2-3\); image: mean \S+, std \S+, min \S+, max \S+, "
        r"1 of 6 values are not finite; kept in bad/step-00000002\.pt"
    )
    assert re.search(pattern, told[0])


def test_the_first_three_batches_are_kept_and_repeat_the_step(tmp_path: Path) -> None:
    train(tmp_path / "a", module=Skipping(), callbacks=(Poison([2, 4, 6, 8]), guard(tmp_path / "bad")))
    assert SAVED == 3
    kept = sorted(path.name for path in (tmp_path / "bad").iterdir())
    assert kept == ["step-00000002.pt", "step-00000003.pt", "step-00000004.pt"]
    batch = torch.load(tmp_path / "bad" / kept[0], weights_only=True)
    assert (batch["step"], batch["case_id"], batch["n"]) == (2, ["2", "3"], [2, 3])
    assert math.isnan(batch["loss"])
    assert int(batch["image"].isnan().sum()) == 1
    assert batch["target"]["label"].shape == (2, 1)
    assert bool(Skipping().eval().net(batch["image"]).isnan().any())


def test_a_batch_that_cannot_be_kept_warns_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bad").write_text("a file where the folder should be")
    watch = guard(tmp_path / "bad")
    _, trainer = train(tmp_path / "a", module=Skipping(), callbacks=(Poison([2]), watch))
    assert trainer.global_step == 8
    assert "could not be written to" in caplog.text
    assert "loss nan; cases 2, 3" in caplog.text
    assert "kept in" not in caplog.text


def test_eleven_in_a_row_end_the_run_and_ten_do_not(tmp_path: Path) -> None:
    data = {"data": ToyData(batches=20), "epochs": 1}
    ten = guard(tmp_path / "bad")
    train(tmp_path / "a", module=Skipping(), callbacks=(Poison(range(4, 24)), ten), **data)
    assert (ten.ledger.skipped, ten.ledger.in_a_row) == (10, 0)
    eleven = (Poison(range(4, 100)), guard(tmp_path / "bad"))
    with pytest.raises(Diverged) as ended:
        train(tmp_path / "b", module=Skipping(), callbacks=eleven, data=ToyData(batches=20), epochs=1)
    assert exit_code(ended.value) == ExitCode.BUG == 1
    assert "11 steps in a row" in ended.value.why
    assert "the weights are finite" in ended.value.why
    assert ended.value.where.startswith("optimizer step 13, cases 4, 5, 6")
    for key in ("optimizer.lr", "trainer.gradient_clip", "trainer.precision=32-true", "segkit.check", "resume="):
        assert key in ended.value.mend


def test_a_share_of_all_steps_ends_the_run_once_more_than_ten_are_left_out(tmp_path: Path) -> None:
    watch = guard(tmp_path / "bad", limits=Limits(share=0.4))
    with pytest.raises(Diverged, match=r"11 of 21 steps \(52\.4%\) were left out"):
        train(
            tmp_path / "a",
            module=Skipping(),
            callbacks=(Poison(range(0, 200, 4)), watch),  # every other step
            data=ToyData(batches=40),
        )


def test_the_counts_survive_a_resume_and_the_same_poison_ends_the_run_again(tmp_path: Path) -> None:
    """Steps 7 to 17 are poisoned; the epoch of 10 steps ends after four of them."""

    def life(resume: Path | None, *more: Callback) -> NonFiniteGuard:
        watch = guard(tmp_path / "bad", every_n_steps=100)
        callbacks = (Poison(range(12, 34)), watch, *more)
        train(tmp_path / "a", module=Skipping(), callbacks=callbacks, resume=resume, data=ToyData(batches=10), epochs=3)
        return watch

    with pytest.raises(Diverged, match="optimizer step 17"):
        life(None)
    saved = checkpoint_path(tmp_path / "a", 10)
    assert load_index(tmp_path / "a")[-1].step == 10
    for _ in range(2):
        with pytest.raises(Diverged, match="11 steps in a row") as again:
            life(saved)
        assert "optimizer step 17, cases 12, 13" in str(again.value)


def test_what_is_untold_when_a_checkpoint_is_written_is_told_in_the_next_life(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class SaveAt(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == 2:
                checkpointing.save_now = True

    def life(resume: Path | None, *more: Callback) -> list[Any]:
        watch = guard(tmp_path / "bad", every_n_steps=3)
        callbacks = (Poison([2]), watch, SaveAt(), *more)
        train(tmp_path / "a", module=Skipping(), callbacks=callbacks, resume=resume, checkpointing=checkpointing)
        return watch.ledger.journal.rows

    checkpointing = Checkpointing(tmp_path / "a", every_s=None, keep=9)
    with pytest.raises(Killed):
        life(None, Die(2))
    assert "cases 2, 3" not in caplog.text
    assert life(checkpoint_path(tmp_path / "a", 2)) == [(3, METRIC, 1.0)]
    assert "cases 2, 3" in caplog.text


def test_weights_that_are_not_finite_are_not_stored(tmp_path: Path) -> None:
    class Break(Callback):
        def on_train_epoch_end(self, trainer: Trainer, module: ToyModule) -> None:
            if trainer.current_epoch == 1:
                module.net[0].weight.data[0, 0] = torch.inf

    with pytest.raises(Diverged, match=r"the weights are no longer finite.*\n.*step 8\n.*net\.0\.weight"):
        train(tmp_path / "a", module=Skipping(), callbacks=(Break(), guard(tmp_path / "bad")))
    assert [entry.step for entry in load_index(tmp_path / "a")] == [4]
    assert not checkpoint_path(tmp_path / "a", 8).exists()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("how", "skipped"), [("loss", 1), ("gradient", 0)])
def test_in_float16_an_infinite_gradient_is_the_scalers_business(
    tmp_path: Path, how: How, skipped: int, fused: bool
) -> None:
    watch, module = guard(tmp_path / "bad"), Skipping(fused=fused)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    callbacks = (Poison([0], how), watch, Die(1))
    with pytest.raises(Killed):
        train(tmp_path / "a", module=module, callbacks=callbacks, plugins=(float16(),))
    assert watch.ledger.skipped == skipped
    assert_same(module.state_dict(), before)  # left out either way


def test_in_float16_an_infinite_gradient_counts_once_the_scale_cannot_be_the_cause(tmp_path: Path) -> None:
    watch = guard(tmp_path / "bad")
    data = ToyData(batches=30)  # the scale starts at 2**16 and is halved each time
    with pytest.raises(Diverged, match="11 steps in a row"):
        train(
            tmp_path / "a",
            module=Skipping(),
            callbacks=(Poison(range(100), "gradient"), watch),
            plugins=(float16(),),
            data=data,
        )
    assert data.n == 2 * (16 + 11)

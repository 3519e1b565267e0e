"""What is timed is what the clock says, first steps left out."""

from pathlib import Path

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from tests.callbacks.toy import ToyData, train

from segkit.callbacks.stop_watch import FEWEST, WARM_UP, StopWatch


class Machine(Callback):
    """Slow first steps, slower ones for a while, then 0.5 s each but for a burst; 3 s a validation."""

    def __init__(self, slower: int = 0, burst: range = range(0)) -> None:
        self.now, self.slower, self.burst = 0.0, slower, burst

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        after = trainer.global_step - WARM_UP
        self.now += 10.0 if after < 0 else 0.9 if after < self.slower else 2.0 if after in self.burst else 0.5

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self.now += 1.5  # of two batches

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("for_s", "slower", "settled", "steps"),
    # Twice the time: whole steps of 0.5 s that reach it; 0.9 s each for the slower ones; not more than 8 s at first.
    [
        (0.0, 0, 1, FEWEST),
        (0.0, 1, 1, FEWEST),
        (4.0, 0, 8, 8),
        (5.3, 0, 11, 11),
        (4.0, 2, 7, 8),
        (4.0, 4, 5, 8),
        (9.0, 0, 16, 18),
    ],
)
def test_mean_step_without_the_first_ones(tmp_path: Path, for_s: float, slower: int, settled: int, steps: int) -> None:
    machine = Machine(slower)
    watch = StopWatch(for_s, clock=machine.clock)
    _, trainer = train(tmp_path, epochs=9, callbacks=(machine, watch), data=ToyData(batches=1000))
    assert watch.steps == steps
    assert trainer.global_step == WARM_UP + settled + steps
    assert watch.step_s == pytest.approx(0.5)
    assert watch.validation_s == pytest.approx(3.0)
    assert watch.epoch_s == pytest.approx(0.0)


def test_a_burst_is_not_taken_for_the_pace(tmp_path: Path) -> None:
    """Three steps four times as slow: the mean of all would be a fifth too large."""
    machine = Machine(burst=range(30, 33))
    watch = StopWatch(24.0, clock=machine.clock)
    train(tmp_path, epochs=9, callbacks=(machine, watch), data=ToyData(batches=1000))
    assert watch.step_s == pytest.approx(0.5)
    assert watch.epoch_s == pytest.approx(0.0)

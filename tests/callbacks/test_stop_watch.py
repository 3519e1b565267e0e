"""What is timed is what the clock says, first steps left out."""

from pathlib import Path

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from tests.callbacks.toy import ToyData, train

from segkit.callbacks.stop_watch import FEWEST, WARM_UP, StopWatch


class Machine(Callback):
    """Slow first steps, then 0.5 s each; 3 s a validation."""

    def __init__(self) -> None:
        self.now = 0.0

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        self.now += 10.0 if trainer.global_step < WARM_UP else 0.5

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self.now += 1.5  # of two batches

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize(("for_s", "steps"), [(0.0, FEWEST), (5.0, 10), (7.9, 16)])
def test_mean_step_without_the_first_ones(tmp_path: Path, for_s: float, steps: int) -> None:
    machine = Machine()
    watch = StopWatch(for_s, clock=machine.clock)
    _, trainer = train(tmp_path, epochs=9, callbacks=(machine, watch), data=ToyData(batches=1000))
    assert watch.steps == steps
    assert trainer.global_step == WARM_UP + steps
    assert watch.step_s == pytest.approx(0.5)
    assert watch.validation_s == pytest.approx(3.0)
    assert watch.epoch_s == pytest.approx(0.0)

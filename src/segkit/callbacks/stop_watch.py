"""Times the steps of a short training, its validation and the rest of its epoch; ends it when it has seen enough."""

import time
from collections.abc import Callable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

WARM_UP = 3
"""First steps that are not counted: memory is being found, kernels are being chosen."""
FEWEST = 6
"""Steps that are timed at least."""


class StopWatch(Callback):
    """Stops the training after `seconds` of steps, but not before `FEWEST` of them.

    Afterwards `steps` are those that were timed, `step_s` is the mean of one, `validation_s` the time of the
    validation and `epoch_s` what else came between the last step and the end.

    Args:
        seconds: How long to time steps.
        clock: Seconds since any moment.
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds, self.clock = seconds, clock
        self.steps = 0
        self.step_s = self.validation_s = self.epoch_s = 0.0
        self._begin = self._last = self._validation = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Count the optimizer steps; the device is waited for at the first and at the last of them only."""
        del outputs, batch, batch_idx
        done = trainer.global_step - WARM_UP
        if done < 0 or done == self.steps > 0 or trainer.should_stop:
            return  # warming up, or gradients are still being accumulated
        if done == 0:
            self._begin = self._now(pl_module)
            return
        self.steps = done
        if done >= FEWEST and self.clock() - self._begin >= self.seconds:
            self._last = self._now(pl_module)
            self.step_s = (self._last - self._begin) / done
            trainer.should_stop = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Time the validation apart."""
        self._validation = self._now(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Time the validation apart."""
        self.validation_s = self._now(pl_module) - self._validation

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """What is left is the epoch's own: its checkpoint, its rows, its pictures."""
        self.epoch_s = max(0.0, self._now(pl_module) - self._last - self.validation_s)

    def _now(self, module: LightningModule) -> float:
        if module.device.type == "cuda":
            torch.cuda.synchronize(module.device)
        return self.clock()

"""Times the steps of a short training, its validation and the rest of its epoch; ends it when it has seen enough."""

import time
from collections.abc import Callable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

WARM_UP = 3
"""First steps that are not counted: memory is being found, kernels are being chosen."""
FEWEST = 6
"""Steps that are timed at least."""
SETTLING = 1 / 3
"""Share of the time at whose end the counting begins anew: processors and loaders settle over seconds, not steps."""


class StopWatch(Callback):
    """Stops the training after `seconds` of steps, but not before `FEWEST` of them are timed.

    Afterwards `steps` are those that were timed, once things had settled, `step_s` is the mean of one, `validation_s`
    the time of the validation and `epoch_s` what else came between the last step and the end.

    Args:
        seconds: How long to time steps.
        clock: Seconds since any moment.
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds, self.clock = seconds, clock
        self.steps = 0
        self.step_s = self.validation_s = self.epoch_s = 0.0
        self._begin = self._last = self._validation = 0.0
        self._before = WARM_UP
        self._settled = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Count the optimizer steps; the device is waited for where counting begins and ends only."""
        del outputs, batch, batch_idx
        done = trainer.global_step - self._before
        if done < 0 or done == self.steps > 0 or trainer.should_stop:
            return  # warming up, or gradients are still being accumulated
        if done == 0:
            self._begin = self._begin if self._settled else self._now(pl_module)
            return
        self.steps = done
        if not self._settled and self.clock() - self._begin >= SETTLING * self.seconds:
            self._settled, self._before, self.steps = True, trainer.global_step, 0
            self._begin = self._now(pl_module)
        elif done >= FEWEST and self._settled and self.clock() - self._begin >= (1 - SETTLING) * self.seconds:
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

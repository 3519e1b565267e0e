"""Times the steps of a short training, its validation and the rest of its epoch; ends it when it has seen enough."""

import statistics
import time
from collections.abc import Callable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

WARM_UP = 3
"""First steps that are not counted: memory is being found, kernels are being chosen."""
FEWEST = 6
"""Steps that are timed at least."""
SETTLING_S = 8.0
"""Time after which the counting begins anew: memory, processors and loaders settle over seconds, not steps."""

PIECES = 8
"""Parts of the time that are timed each by itself."""


class StopWatch(Callback):
    """Stops the training once `seconds` of steps are timed, and at least `FEWEST` of them.

    What comes before, at most as long again, is left out: on two shared cores the first 12 seconds of a training ran
    a tenth slower than the five minutes after them (three runs of three).

    Afterwards `steps` are those that were timed, once things had settled, `step_s` is what one takes, `validation_s`
    the time of the validation and `epoch_s` what else came between the last step and the end.

    The time is divided into pieces, and `step_s` is the median of their mean steps: what another process on the machine
    took for a second or two is not taken for the pace of hours.

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
        self._pieces: list[float] = []
        self._piece, self._piece_steps = 0.0, 0

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
        if not self._settled:
            if self.clock() - self._begin >= min(SETTLING_S, self.seconds):
                self._settled, self._before, self.steps = True, trainer.global_step, 0
                self._begin = self._piece = self._now(pl_module)
            return
        over = done >= FEWEST and self.clock() - self._begin >= self.seconds
        if over or self.clock() - self._piece >= self.seconds / PIECES:
            self._end_piece(done, pl_module)
        if over:
            self._last = self._piece
            self.step_s = statistics.median(self._pieces)
            trainer.should_stop = True

    def _end_piece(self, done: int, module: LightningModule) -> None:
        """The piece ends with the step that was just made."""
        now = self._now(module)
        self._pieces.append((now - self._piece) / (done - self._piece_steps))
        self._piece, self._piece_steps = now, done

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

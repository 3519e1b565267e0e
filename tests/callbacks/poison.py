"""What spoils a step, and the same run with that step left out by other means than the guard's."""

import copy
from collections.abc import Collection
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from segkit.types import Batch

How = Literal["image", "loss", "gradient"]
HOWS: tuple[How, ...] = ("image", "loss", "gradient")


class Poison(Callback):
    """Spoils batches by their position n: a NaN voxel, a NaN loss with a finite gradient, or the reverse.

    A position (the first sample of a batch) survives a resume, so that a run meets the same poison in every life.
    """

    def __init__(self, at: Collection[int], how: How = "image") -> None:
        self.at, self.how = at, how
        self._poisoned = False

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self._poisoned = batch.n[0] in self.at
        if self._poisoned and self.how == "image":
            batch.image.view(-1)[3] = torch.nan

    def on_before_backward(self, trainer: Trainer, module: LightningModule, loss: torch.Tensor) -> None:
        if self._poisoned and self.how == "loss":
            loss.data.fill_(torch.nan)

    def on_after_backward(self, trainer: Trainer, module: LightningModule) -> None:
        if self._poisoned and self.how == "gradient":
            next(p for p in module.parameters() if p.grad is not None).grad.view(-1)[0] = torch.inf


class LeaveOut(Callback):
    """Undoes the steps whose batches begin at `at`: weights, moments and schedule are put back as they were."""

    def __init__(self, at: Collection[int]) -> None:
        self.at = at
        self._before: Any = None

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Batch, batch_idx: int) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            parts = [module, *trainer.optimizers, *(config.scheduler for config in trainer.lr_scheduler_configs)]
            self._before = [(part, copy.deepcopy(part.state_dict())) for part in parts]
            self._undo = False
        self._undo = self._undo or batch.n[0] in self.at

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self._undo and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            for part, state in self._before:
                part.load_state_dict(state)

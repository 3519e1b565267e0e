"""Exponential moving average of the weights: validated and shipped, while the optimizer moves the raw ones.

Reference: Polyak and Juditsky (1992), Acceleration of stochastic approximation by averaging.
"""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from segkit.callbacks.checkpointing import TRAINING_WEIGHTS


def warmed_decay(decay: float, updates: int) -> float:
    """min(decay, (1 + t) / (10 + t)): short memory while the weights still move fast."""
    return min(decay, (1 + updates) / (10 + updates))


class WeightAveraging(Callback):
    """Keeps avg <- d avg + (1 - d) w after each optimizer step and swaps it in for validation.

    In a checkpoint, `state_dict` is the average (what was scored is what is shipped) and the raw weights lie beside
    it; both come back bitwise. Buffers that are no floating-point numbers are copied. After training the module
    holds the raw weights: read the selected checkpoint.

    Args:
        decay: d in [0, 1); 0 is no average.

    Raises:
        ValueError: `decay` outside of [0, 1).
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), not {decay}")
        self.decay = decay
        self._average: dict[str, Tensor] | None = None
        self._raw: dict[str, Tensor] | None = None
        self._updates = 0
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the present weights, or bring the restored average to the device."""
        if self._average is None:
            self._average = _copy(pl_module)
            self._step = trainer.global_step
        self._average = {name: value.to(pl_module.device) for name, value in self._average.items()}

    @torch.no_grad()
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,  # noqa: ARG002
        batch: object,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Move the average, once an optimizer step; not where the step was left out (see `NonFiniteGuard`).

        Where only the device knows whether it was, the average moves by 0 times the way, which is not at all.
        """
        if trainer.global_step == self._step or self._average is None:
            return
        self._step = trainer.global_step
        if getattr(pl_module, "skipped_step", False):
            return
        weight = 1 - warmed_decay(self.decay, self._updates)
        left_out: Tensor | None = getattr(pl_module, "skipped_on_device", None)
        share = None if left_out is None else torch.where(left_out.bool(), 0.0, weight)
        for name, value in pl_module.state_dict().items():
            if value.is_floating_point():
                self._average[name].lerp_(value, weight if share is None else share.to(value.dtype))
            else:
                self._average[name].copy_(value)
        self._updates += 1

    def take_back(self) -> None:
        """The latest step turns out to have been left out: the average has not moved, so it does not count."""
        self._updates -= 1

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Put the average into the module."""
        if self._average is not None:
            self._raw = _copy(pl_module)
            pl_module.load_state_dict(self._average)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Put the raw weights back."""
        if self._raw is not None:
            pl_module.load_state_dict(self._raw)
            self._raw = None

    def on_save_checkpoint(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        checkpoint: dict[str, Any],
    ) -> None:
        """The average is the model; the raw weights lie beside it."""
        if self._average is not None:
            checkpoint[TRAINING_WEIGHTS] = checkpoint["state_dict"]
            checkpoint["state_dict"] = self._average

    def on_load_checkpoint(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Take the average over and give the module its raw weights back.

        A checkpoint without an average begins one with its weights.
        """
        self._average = {name: value.detach().clone() for name, value in checkpoint["state_dict"].items()}
        self._step = int(checkpoint["global_step"])
        if TRAINING_WEIGHTS in checkpoint:
            pl_module.load_state_dict(checkpoint[TRAINING_WEIGHTS])

    def state_dict(self) -> dict[str, Any]:
        """Number of updates: the decay's warm-up depends on it."""
        return {"updates": self._updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the number of updates over."""
        self._updates = int(state_dict["updates"])


def _copy(module: LightningModule) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}

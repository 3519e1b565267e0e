"""Parts that fail on one rank, at one point, in one way: chosen by the configuration like any part of a user's own."""

import ctypes
import os
import signal
import time
from typing import Any

import torch
from torch import Tensor, nn

from segkit.losses.dice import DiceLoss
from segkit.types import Target


def fail(how: str) -> None:
    """End this process as `how` says."""
    if how == "exception":
        raise ArithmeticError("the faulty part has failed on purpose")
    if how == "segfault":
        ctypes.string_at(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "sleep":
        time.sleep(0.5)


def here(rank: int) -> bool:
    return int(os.environ.get("RANK", "0")) == rank


class FaultyLoss(nn.Module):
    """Soft Dice that fails in its `at`-th training step, or in validation."""

    def __init__(self, *, rank: int, how: str, where: str, at: int = 2) -> None:
        super().__init__()
        self.loss, self.rank, self.how, self.where, self.at = DiceLoss(), rank, how, where, at
        self.steps = self.finest = 0

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        point = "step" if torch.is_grad_enabled() else "validation"
        self.finest = max(self.finest, logits.numel())
        self.steps += point == "step" and logits.numel() == self.finest  # once a step, not once a level
        if here(self.rank) and point == self.where and (point == "validation" or self.steps >= self.at):
            fail(self.how)
        value: Tensor = self.loss(logits, target)
        return value


class FaultyAdamW(torch.optim.AdamW):
    """AdamW that fails when a checkpoint asks for its state."""

    def __init__(self, params: Any, *, lr: float, rank: int, how: str) -> None:
        super().__init__(params, lr=lr)
        self.rank, self.how = rank, how

    def state_dict(self) -> dict[str, Any]:
        if here(self.rank) and self.state:
            fail(self.how)
        return super().state_dict()

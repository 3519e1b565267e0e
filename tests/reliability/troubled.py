"""A loss that makes trouble in the process that evaluates apart, and nowhere else; chosen by the configuration."""

import sys
import time
from pathlib import Path

from torch import Tensor, nn

from segkit.losses.dice import DiceLoss
from segkit.types import Target


class TroubledLoss(nn.Module):
    """Soft Dice. In the evaluation it does what the file `orders` says: `crash`, `hang`, or wait for the file `go`."""

    def __init__(self, *, orders: str) -> None:
        super().__init__()
        self.loss, self.orders = DiceLoss(), Path(orders)

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        if "segkit._evaluator" in sys.orig_argv and self.orders.exists():
            order = self.orders.read_text()
            if order == "crash":
                raise ArithmeticError("the evaluation has failed on purpose")
            while order == "hang" or not self.orders.with_name("go").exists():
                time.sleep(0.01)
        value: Tensor = self.loss(logits, target)
        return value

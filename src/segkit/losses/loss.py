"""What losses share: their type, the precision they compute in, and the settings that none can do with."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segkit.errors import UsageError
from segkit.types import Logits, Target


class Loss(nn.Module):
    """Base of segkit's losses; a user's own needs only the same `forward` (and `needs`, where it reads more).

    Attributes:
        needs: Optional fields of `Target` that the loss reads.
        usable_alone: False where some wrong answer (nothing anywhere, foreground everywhere) costs no more than the
            truth: such a loss guides a training only as a term of a sum.
        epoch: Epoch that training is in, from 0; set by the module that trains, also after a resume. What changes with
            it is a pure function of it.
        waits: Whether the host waits for the device, once a call or more, as where a part is computed on the host.
    """

    needs: frozenset[str] = frozenset()
    usable_alone: bool = True
    waits: bool = False
    epoch: int = 0

    def forward(self, logits: Logits, target: Target) -> Float[Tensor, ""]:
        """Scalar to minimise."""
        raise NotImplementedError


class FunctionLoss(Loss):
    """A pure function of logits and target, and nothing else.

    Args:
        function: The loss, its settings filled in.
    """

    def __init__(self, function: Callable[[Logits, Target], Float[Tensor, ""]]) -> None:
        super().__init__()
        self.function = function

    def forward(self, logits: Logits, target: Target) -> Float[Tensor, ""]:
        """Scalar to minimise."""
        return self.function(logits, target)


def set_epoch(loss: nn.Module, epoch: int) -> None:
    """Tell a loss, and those it is made of, which epoch training is in."""
    for each in loss.modules():
        if isinstance(each, Loss):
            each.epoch = epoch


def full_precision(logits: Logits) -> Logits:
    """Half-precision logits as float32: sums over a million voxels and logarithms need its range and digits."""
    return logits if logits.dtype == torch.float64 else logits.float()


def require_smoothing(smooth: float, *, suggested: float = 1e-5) -> None:
    """Refuse a smoothing that leaves a ratio of sums undefined.

    Raises:
        UsageError: `smooth` is not positive.
    """
    if smooth <= 0:
        raise UsageError(
            "a ratio of overlap needs a positive smoothing",
            where="loss.smooth",
            why=f"{smooth} leaves 0 / 0 for what is neither there nor predicted",
            mend=f"loss.smooth={suggested:g}",
        )

"""What every loss shares: its type, and the precision it computes in."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

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


def set_epoch(loss: nn.Module, epoch: int) -> None:
    """Tell a loss, and those it is made of, which epoch training is in."""
    for each in loss.modules():
        if isinstance(each, Loss):
            each.epoch = epoch


def full_precision(logits: Logits) -> Logits:
    """Half-precision logits as float32: sums over a million voxels and logarithms need its range and digits."""
    return logits if logits.dtype == torch.float64 else logits.float()

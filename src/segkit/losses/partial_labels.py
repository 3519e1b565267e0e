"""Partial labels: cases in which some classes were not annotated, whose background may hold any of these.

Of such a case the label says of a background voxel no more than "background or one of U", U the classes that were not
annotated. So the probability of that is what a loss is shown (the marginal loss), by logits that belong to it:

    z'_0 = log sum of exp z_j over j in {0} and U            softmax then gives p'_0 = p_0 + sum of p_u
    z'_u = min(0, log sum of exp z_j over all j) - 60        and p'_u < 1e-26
    z'_k = z_k for all others

It happens before the loss and so serves every one: none pushes an unannotated class down where the label says
background, and its Dice is s / s. With `sigmoid` it is odds that add up, odds'_0 = odds_0 + sum of odds_u: "background
or U" is likely as soon as one of them is.

Logits of cases with all classes stay as they are, to the bit. Label smoothing spreads a little of each label over all
classes, z'_u among them: that adds a constant, and a pull of the same small share on the size of the logits.

Reference:
    Shi et al., Marginal loss and exclusion loss for partially supervised multi-organ segmentation (2021).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from segkit.losses.loss import Loss, full_precision
from segkit.types import Logits, Target

_NEVER = 60.0
"""Below all other logits: exp(-60) vanishes beside any sum over voxels, and is no zero whose logarithm is infinite."""


def marginal_logits(logits: Logits, labels_present: Bool[Tensor, "B K"]) -> Logits:
    """Logits in which classes that were not annotated are part of the background.

    Args:
        logits: (B, K, *S).
        labels_present: (B, K), whether a class was annotated in the case; of the background it is not read.

    Returns:
        (B, K, *S) float32 (float64 for float64 logits).
    """
    z = full_precision(logits)
    present = labels_present.view(*labels_present.shape, *[1] * (z.ndim - 2))
    background = torch.zeros_like(present)
    background[:, 0] = True
    absent = ~present & ~background
    together = z.masked_fill(present & ~background, -torch.inf).logsumexp(1, keepdim=True)
    never = z.logsumexp(1, keepdim=True).clamp_max(0) - _NEVER
    partial = absent.any(1, keepdim=True)
    return torch.where(background & partial, together, torch.where(absent, never, z))


def classes_present(annotated: Sequence[frozenset[int] | None], *, num_classes: int) -> Bool[Tensor, "B K"]:
    """`Target.labels_present` of a batch: the background, and what was annotated.

    Args:
        annotated: The foreground classes annotated in the case of each sample, by index; None: all of them.
        num_classes: K, background included.
    """
    rows = [
        [index == 0 or classes is None or index in classes for index in range(num_classes)] for classes in annotated
    ]
    return torch.tensor(rows, dtype=torch.bool).view(len(annotated), num_classes)


class PartialLabels(Loss):
    """A loss over cases in which not every class was annotated; a target without `labels_present` has them all.

    Args:
        loss: The loss of one level of logits.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss
        self.needs = frozenset(getattr(loss, "needs", frozenset())) | {"labels_present"}
        self.usable_alone = bool(getattr(loss, "usable_alone", True))
        self.waits = bool(getattr(loss, "waits", False))

    def forward(self, logits: Logits, target: Target) -> Float[Tensor, ""]:
        """Scalar to minimise."""
        if target.labels_present is not None:
            with torch.autocast(logits.device.type, enabled=False):
                logits = marginal_logits(logits, target.labels_present)
            target = replace(target, labels_present=None)
        loss: Tensor = self.loss(logits, target)
        return loss


def over_partial_labels(loss: nn.Module, annotated: Iterable[frozenset[int] | None]) -> nn.Module:
    """The loss for data of which some cases are annotated in part; itself, at no cost, where all are in whole.

    Args:
        loss: The loss of one level of logits.
        annotated: The foreground classes annotated in each case that is trained or validated on; None: all of them.
    """
    return loss if all(classes is None for classes in annotated) else PartialLabels(loss)

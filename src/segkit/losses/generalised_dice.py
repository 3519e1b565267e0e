"""Generalised Dice loss: one Dice of all classes, each weighted by its size.

    loss = 1 - mean over samples of (2 sum over k of w_k I_k + s) / (sum over k of w_k (P_k + Y_k) + s)

    I = sum of p y,  P = sum of p,  Y = sum of y        over voxels, those with label -1 left out
    w_k = (m / Y_k)^2   square,    m / Y_k   simple,    1   uniform;       m = the smallest Y_k > 0 of the sample

p is the softmax (or sigmoid) of the logits, y the one-hot label, s the smoothing. With `batch_dice` the sums run over
the whole batch, that of all ranks together, before the ratio. Weights are relative to the smallest class, which has 1:
only their ratios enter the ratio, and so s is in voxels of that class whatever the size of the image.

Edge cases: a class that is absent weighs as much as the smallest one that is there, so that a false alarm costs; with
none there all weigh 1 and probabilities are pulled to 0 through s. Where everything is ignored the loss is 0 with a
gradient of 0.

Reference:
    Sudre et al., Generalised Dice overlap as a deep learning loss function (2017), arXiv 1707.03237.
"""

from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from segkit.losses.loss import require_smoothing
from segkit.losses.soft_counts import Activation, CountsLoss, SoftCounts, soft_counts
from segkit.ops.ranks import sum_over_ranks
from segkit.types import LabelBatch, Logits

Weighting = Literal["square", "simple", "uniform"]
_EXPONENTS = {"square": 2, "simple": 1, "uniform": 0}


def generalised_dice_loss(
    logits: Logits,
    label: LabelBatch,
    *,
    weighting: Weighting = "square",
    batch_dice: bool = False,
    include_background: bool = True,
    smooth: float = 1e-5,
    activation: Literal["softmax", "sigmoid"] = "softmax",
) -> Float[Tensor, ""]:
    """One minus the generalised Dice.

    Args:
        logits: (B, K, *S).
        label: (B, 1, *S) class indices; -1 is ignored.
        weighting: How the weight of a class falls with its size.
        batch_dice: Whether the sums run over the batch, before the ratio, instead of over each sample.
        include_background: Whether class 0 is one of the classes.
        smooth: Added to numerator and denominator; positive, so that an empty sample is defined.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Returns:
        Scalar in [0, 1], float32 (float64 for float64 logits).
    """
    counts = soft_counts(logits, label, activation=activation)
    return _of_counts(
        counts, weighting=weighting, batch_dice=batch_dice, include_background=include_background, smooth=smooth
    )


def _of_counts(
    counts: SoftCounts, *, weighting: Weighting, batch_dice: bool, include_background: bool, smooth: float
) -> Float[Tensor, ""]:
    first = 0 if include_background else 1
    sums = torch.stack([counts.intersection, counts.predicted, counts.present])[:, :, first:]
    if batch_dice:
        sums = sum_over_ranks(sums.sum(1))
    intersection, predicted, present = sums
    weights = _weights(present.detach(), weighting)
    overlap = 2 * (weights * intersection).sum(-1) + smooth
    volume = (weights * (predicted + present)).sum(-1) + smooth
    loss: Tensor = 1 - (overlap / volume).mean()
    return loss


def _weights(present: Float[Tensor, "*B K"], weighting: Weighting) -> Float[Tensor, "*B K"]:
    """(m / max(Y, m))^e: 1 for the smallest class that is there, and for those that are not."""
    smallest = torch.where(present > 0, present, torch.inf).amin(-1, keepdim=True)
    smallest = torch.where(smallest.isinf(), 1.0, smallest)
    return (smallest / torch.maximum(present, smallest)) ** _EXPONENTS[weighting]


class GeneralisedDiceLoss(CountsLoss):
    """Generalised Dice loss; see `generalised_dice_loss`.

    Args:
        weighting: How the weight of a class falls with its size.
        batch_dice: Whether the sums run over the batch instead of over each sample.
        include_background: Whether class 0 is one of the classes.
        smooth: Added to numerator and denominator.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Raises:
        UsageError: `smooth` is not positive.
    """

    def __init__(
        self,
        *,
        weighting: Weighting = "square",
        batch_dice: bool = False,
        include_background: bool = True,
        smooth: float = 1e-5,
        activation: Literal["softmax", "sigmoid"] = "softmax",
    ) -> None:
        super().__init__()
        require_smoothing(smooth)
        self.activation: Activation = activation
        self.formula = partial(
            _of_counts, weighting=weighting, batch_dice=batch_dice, include_background=include_background, smooth=smooth
        )

    def of_counts(self, counts: SoftCounts) -> Float[Tensor, ""]:
        """Scalar in [0, 1]."""
        return self.formula(counts)

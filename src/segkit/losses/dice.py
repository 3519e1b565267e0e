"""Soft Dice loss.

    loss = 1 - mean over samples and classes of (2 I + s) / (P + Y + s)

    I = sum of p y,  P = sum of p,  Y = sum of y        over voxels, those with label -1 left out

With `squared` the sums of the denominator are those of the V-Net, P = sum of p^2 and Y = sum of y^2 = sum of y.

p is the softmax (or sigmoid) of the logits, y the one-hot label, s the smoothing. With `batch_dice` the sums run over
the whole batch, that of all ranks together, and the mean over classes only.

Edge cases: a class that is in neither scores 1 as its probability goes to 0, and until then is pulled there through s
alone; where everything is ignored the loss is 0 with a gradient of 0.

Reference:
    Milletari et al., V-Net (2016), with squares; Drozdzal et al. (2016) without; nnU-Net's soft Dice, shifted from
    [-1, 0] to [0, 1].
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from segkit.losses.loss import require_smoothing
from segkit.losses.soft_counts import Activation, CountsLoss, SoftCounts, soft_counts
from segkit.losses.voxels import voxels
from segkit.ops.ranks import sum_over_ranks
from segkit.types import LabelBatch, Logits, Target


def soft_dice_loss(
    logits: Logits,
    label: LabelBatch,
    *,
    batch_dice: bool = False,
    include_background: bool = False,
    squared: bool = False,
    smooth: float = 1e-5,
    activation: Literal["softmax", "sigmoid"] = "softmax",
) -> Float[Tensor, ""]:
    """One minus the mean soft Dice.

    Args:
        logits: (B, K, *S).
        label: (B, 1, *S) class indices; -1 is ignored.
        batch_dice: Whether the sums run over the batch, before the ratio, instead of over each sample.
        include_background: Whether class 0 takes part in the mean.
        squared: Whether the denominator sums p^2 instead of p.
        smooth: Added to numerator and denominator; positive, so that an empty class is defined.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Returns:
        Scalar in [0, 1], float32 (float64 for float64 logits).
    """
    count = _squared_counts if squared else soft_counts
    counts = count(logits, label, activation=activation)
    scores = dice_scores(counts, batch_dice=batch_dice, include_background=include_background, smooth=smooth)
    loss: Tensor = 1 - scores.mean()
    return loss


def dice_scores(
    counts: SoftCounts, *, batch_dice: bool, include_background: bool, smooth: float
) -> Float[Tensor, "samples classes"]:
    """Soft Dice by sample and class; one row with `batch_dice`. See `soft_dice_loss` for the arguments."""
    first = 0 if include_background else 1
    sums = torch.stack([counts.intersection, counts.predicted, counts.present])[:, :, first:]
    if batch_dice:
        sums = sum_over_ranks(sums.sum(1, keepdim=True))
    intersection, predicted, present = sums
    scores: Tensor = (2 * intersection + smooth) / (predicted + present + smooth)
    return scores


def _squared_counts(logits: Logits, label: LabelBatch, *, activation: Activation) -> SoftCounts:
    """The counts of soft Dice with the sum of p^2 in the place of the sum of p."""
    with torch.autocast(logits.device.type, enabled=False):
        x, truth, known = voxels(logits, label)
        p = (x.softmax(1) if activation == "softmax" else x.sigmoid()) * known
        axes = tuple(range(2, p.ndim))
        overlap = (p * truth).sum(axes)
        return SoftCounts(overlap, (p * p).sum(axes), truth.sum(axes), torch.zeros_like(overlap))


class DiceLoss(CountsLoss):
    """Soft Dice loss; see `soft_dice_loss`.

    Args:
        batch_dice: Whether the sums run over the batch instead of over each sample.
        include_background: Whether class 0 takes part in the mean.
        squared: Whether the denominator sums p^2 instead of p.
        smooth: Added to numerator and denominator.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Raises:
        UsageError: `smooth` is not positive.
    """

    def __init__(
        self,
        *,
        batch_dice: bool = False,
        include_background: bool = False,
        squared: bool = False,
        smooth: float = 1e-5,
        activation: Literal["softmax", "sigmoid"] = "softmax",
    ) -> None:
        super().__init__()
        require_smoothing(smooth)
        self.batch_dice = batch_dice
        self.include_background = include_background
        self.squared = squared
        self.smooth = smooth
        self.activation: Literal["softmax", "sigmoid"] = activation

    @property
    def shares_counts(self) -> bool:
        """Not with `squared`: soft counts hold no squares."""
        return type(self).forward is DiceLoss.forward and not self.squared

    def forward(self, logits: Logits, target: Target) -> Float[Tensor, ""]:
        """Scalar in [0, 1]."""
        count = _squared_counts if self.squared else soft_counts
        return self.of_counts(count(logits, target.label, activation=self.activation))

    def of_counts(self, counts: SoftCounts) -> Float[Tensor, ""]:
        """Scalar in [0, 1]."""
        loss: Tensor = 1 - self.scores(counts).mean()
        return loss

    def scores(self, counts: SoftCounts) -> Float[Tensor, "samples classes"]:
        """Soft Dice by sample and class; one row with `batch_dice`."""
        return dice_scores(
            counts, batch_dice=self.batch_dice, include_background=self.include_background, smooth=self.smooth
        )

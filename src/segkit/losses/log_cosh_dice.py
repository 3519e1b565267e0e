"""Log-cosh Dice loss.

    loss = mean over samples of log cosh D,   D = 1 - mean over classes of (2 I + s) / (P + Y + s)

D is the soft Dice loss of a sample (see `segkit.losses.dice`), with `batch_dice` the one of the batch; it lies in
[0, 1], and so the loss in [0, 0.434]. Its slope tanh D goes to 0 with D: near the truth it is D^2 / 2. The mean over
samples comes last, so that what one sample teaches depends neither on its neighbours nor on the number of ranks.

log cosh x is computed in two pieces, each exact where it is used:

    |x| < 1:   log1p(2 sinh(x / 2)^2)                     no digits are lost near 0
    else:      |x| + log1p(exp(-2 |x|)) - log 2           nothing overflows

Edge cases: those of soft Dice. Where everything is ignored the loss is 0 with a gradient of 0.

Reference:
    Jadon, A survey of loss functions for semantic segmentation (2020), arXiv 2006.14822.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from segkit.losses.dice import DiceLoss, dice_scores
from segkit.losses.soft_counts import SoftCounts, soft_counts
from segkit.types import LabelBatch, Logits


def log_cosh(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The logarithm of cosh x, with derivative tanh x: relative error below 1e-6 in both, for every finite float32."""
    size = x.abs()
    small = size < 1
    # Each piece gets numbers of its own range only: an overflow in the other would make the gradient NaN.
    near = torch.log1p(2 * torch.sinh(torch.where(small, x, torch.zeros_like(x)) / 2) ** 2)
    large = torch.where(small, torch.ones_like(x), size)
    far = large + torch.log1p(torch.exp(-2 * large)) - math.log(2)
    return torch.where(small, near, far)


def log_cosh_dice_loss(
    logits: Logits,
    label: LabelBatch,
    *,
    batch_dice: bool = False,
    include_background: bool = False,
    smooth: float = 1e-5,
    activation: Literal["softmax", "sigmoid"] = "softmax",
) -> Float[Tensor, ""]:
    """The logarithm of the hyperbolic cosine of the soft Dice loss.

    Args:
        logits: (B, K, *S).
        label: (B, 1, *S) class indices; -1 is ignored.
        batch_dice: Whether the sums run over the batch, before the ratio, instead of over each sample.
        include_background: Whether class 0 takes part in the mean.
        smooth: Added to numerator and denominator of Dice.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Returns:
        Scalar in [0, 0.434], float32 (float64 for float64 logits).
    """
    counts = soft_counts(logits, label, activation=activation)
    return _of_scores(dice_scores(counts, batch_dice=batch_dice, include_background=include_background, smooth=smooth))


def _of_scores(scores: Float[Tensor, "samples classes"]) -> Float[Tensor, ""]:
    return log_cosh(1 - scores.mean(1)).mean()


class LogCoshDiceLoss(DiceLoss):
    """Log-cosh Dice loss; see `log_cosh_dice_loss`.

    Args:
        batch_dice: Whether the sums run over the batch instead of over each sample.
        include_background: Whether class 0 takes part in the mean.
        smooth: Added to numerator and denominator of Dice.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Raises:
        UsageError: `smooth` is not positive.
    """

    def __init__(
        self,
        *,
        batch_dice: bool = False,
        include_background: bool = False,
        smooth: float = 1e-5,
        activation: Literal["softmax", "sigmoid"] = "softmax",
    ) -> None:
        super().__init__(
            batch_dice=batch_dice, include_background=include_background, smooth=smooth, activation=activation
        )

    def of_counts(self, counts: SoftCounts) -> Float[Tensor, ""]:
        """Scalar in [0, 0.434]."""
        return _of_scores(self.scores(counts))

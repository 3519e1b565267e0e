"""Tversky and focal Tversky loss.

    loss = mean over samples and classes of (1 - T)^q,   T = (TP + s) / (TP + a FP + b FN + s)

    TP = sum of p y,  FP = sum of p (1 - y),  FN = sum of (1 - p) y     over voxels, those with label -1 left out

p is the softmax (or sigmoid) of the logits, y the one-hot label, s the smoothing, q the exponent. a = b = 0.5 is soft
Dice; b > a asks for recall. An exponent above 1 makes classes that are nearly right count less: focal Tversky. With
`batch_dice` the sums run over the whole batch, that of all ranks together, and the mean over classes only.

The paper on focal Tversky writes the exponent as 1 / gamma with gamma = 4/3, which is 3/4: that counts classes that
are nearly right more, and its slope has no bound where T = 1. Here the number is the exponent itself, and 4/3 is what
focuses. An exponent below 1 is refused.

Edge cases: as for soft Dice. A class that is in neither scores T = 1 as its probability goes to 0, and until then is
pulled there through s alone; where everything is ignored the loss is 0 with a gradient of 0.

Reference:
    Salehi et al., Tversky loss function for image segmentation (2017), arXiv 1706.05721; Abraham and Khan, A novel
    focal Tversky loss function (2018), arXiv 1810.07842.
"""

from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from segkit.errors import UsageError
from segkit.losses.loss import require_smoothing
from segkit.losses.soft_counts import Activation, CountsLoss, SoftCounts, soft_counts
from segkit.ops.ranks import sum_over_ranks
from segkit.types import LabelBatch, Logits


def tversky_loss(
    logits: Logits,
    label: LabelBatch,
    *,
    false_positives: float = 0.3,
    false_negatives: float = 0.7,
    exponent: float = 1.0,
    batch_dice: bool = False,
    include_background: bool = False,
    smooth: float = 1e-5,
    activation: Literal["softmax", "sigmoid"] = "softmax",
) -> Float[Tensor, ""]:
    """Mean of (1 - Tversky index)^exponent.

    Args:
        logits: (B, K, *S).
        label: (B, 1, *S) class indices; -1 is ignored.
        false_positives: a, what a false positive costs.
        false_negatives: b, what a false negative costs.
        exponent: q, at least 1.
        batch_dice: Whether the sums run over the batch, before the ratio, instead of over each sample.
        include_background: Whether class 0 takes part in the mean.
        smooth: s, in voxels; positive, so that an empty class is defined.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Returns:
        Scalar in [0, 1], float32 (float64 for float64 logits).
    """
    counts = soft_counts(logits, label, activation=activation)
    return _of_counts(
        counts,
        false_positives=false_positives,
        false_negatives=false_negatives,
        exponent=exponent,
        batch_dice=batch_dice,
        include_background=include_background,
        smooth=smooth,
    )


def _of_counts(
    counts: SoftCounts,
    *,
    false_positives: float,
    false_negatives: float,
    exponent: float,
    batch_dice: bool,
    include_background: bool,
    smooth: float,
) -> Float[Tensor, ""]:
    first = 0 if include_background else 1
    sums = torch.stack([counts.intersection, counts.predicted, counts.present])[:, :, first:]
    if batch_dice:
        sums = sum_over_ranks(sums.sum(1))
    hit, predicted, present = sums
    wrong = false_positives * (predicted - hit) + false_negatives * (present - hit)
    missing = wrong / (hit + wrong + smooth)  # 1 - T, without the digits that a subtraction from 1 would cost
    if exponent != 1:
        # Rounding may leave a perfect class just below 0, where the power is not defined; its slope at 0 is 0.
        missing = missing.clamp(min=0) ** exponent
    loss: Tensor = missing.mean()
    return loss


class TverskyLoss(CountsLoss):
    """Tversky and focal Tversky loss; see `tversky_loss`.

    Args:
        false_positives: What a false positive costs.
        false_negatives: What a false negative costs.
        exponent: Power of one minus the index; 1 for the Tversky loss, 4/3 for the focal one.
        batch_dice: Whether the sums run over the batch instead of over each sample.
        include_background: Whether class 0 takes part in the mean.
        smooth: Added to numerator and denominator.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Raises:
        UsageError: A cost or `smooth` is not positive, or the exponent is below 1.
    """

    def __init__(
        self,
        *,
        false_positives: float = 0.3,
        false_negatives: float = 0.7,
        exponent: float = 1.0,
        batch_dice: bool = False,
        include_background: bool = False,
        smooth: float = 1e-5,
        activation: Literal["softmax", "sigmoid"] = "softmax",
    ) -> None:
        super().__init__()
        for name, value in (("false_positives", false_positives), ("false_negatives", false_negatives)):
            if value <= 0:
                raise UsageError(
                    "both kinds of error must cost something",
                    where=f"loss.{name}",
                    why=f"{value}: foreground everywhere, or nothing anywhere, would then be perfect",
                    mend=f"loss.{name}=0.3",
                )
        require_smoothing(smooth)
        if exponent < 1:
            raise UsageError(
                "the exponent of the focal Tversky loss must be at least 1",
                where="loss.exponent",
                why=f"the slope of (1 - T)^{exponent:g} has no bound where a class is right",
                mend="loss.exponent=1.3333",
            )
        self.activation: Activation = activation
        self.formula = partial(
            _of_counts,
            false_positives=false_positives,
            false_negatives=false_negatives,
            exponent=exponent,
            batch_dice=batch_dice,
            include_background=include_background,
            smooth=smooth,
        )

    def of_counts(self, counts: SoftCounts) -> Float[Tensor, ""]:
        """Scalar in [0, 1]."""
        return self.formula(counts)

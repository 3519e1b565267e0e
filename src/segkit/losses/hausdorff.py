"""Hausdorff loss by distance transforms: errors count by their distance from the borders of truth and prediction.

    loss = mean over samples, classes and annotated voxels of (p - y)^2 (d_y^alpha + d_p^alpha)

d_y is the distance of a voxel to the other side of the border of the class in mm, d_p the same of the mask p > 0.5.
Neither has a gradient. With `scale=log` the mean over voxels is replaced by log(1 + that mean), sample by sample and
class by class: distances squared are large numbers far from the truth, and would hide every other term of a sum.

Edge cases: a mask that is empty, or everywhere, has no border and d = 0. A class that neither is there nor predicted
costs 0; predicted everywhere where it is absent it costs 0 too, so that this is no loss to use alone. An ignored voxel
neither counts nor is a border.

Costs a distance transform of every class and sample of the truth and of the prediction at each step: on a CPU, seconds
for a large patch.

Reference:
    Karimi & Salcudean, Reducing the Hausdorff distance in medical image segmentation with convolutional neural networks
    (2019), the loss by distance transforms.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from segkit.errors import UsageError
from segkit.losses.loss import Loss
from segkit.losses.probability_maps import mean_of_known, probability_maps, spacing_or_one
from segkit.losses.soft_counts import Activation
from segkit.ops.distance import signed_distance
from segkit.types import LabelBatch, Logits, Spacing, Target


def hausdorff_loss(
    logits: Logits,
    label: LabelBatch,
    *,
    spacing: Spacing | None = None,
    alpha: float = 2.0,
    scale: Literal["linear", "log"] = "linear",
    include_background: bool = False,
    activation: Activation = "softmax",
) -> Float[Tensor, ""]:
    """Squared errors weighted by their distance from the borders.

    Args:
        logits: (B, K, *S).
        label: (B, 1, *S) class indices; -1 is ignored.
        spacing: mm per voxel; None: 1.
        alpha: Power of the distance; positive.
        scale: `linear`, or the logarithm of 1 + the loss of each sample and class.
        include_background: Whether class 0 takes part in the mean.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Returns:
        Scalar >= 0 in mm^alpha (its logarithm), float32 (float64 for float64 logits).
    """
    probability, truth, known = probability_maps(
        logits, label, activation=activation, include_background=include_background
    )
    with torch.no_grad():
        masks = torch.cat([truth > 0, probability > 0.5])
        apart = signed_distance(masks, spacing_or_one(spacing, logits), known=known.repeat(2, *[1] * (known.ndim - 1)))
        of_truth, of_prediction = apart.abs().pow_(alpha).chunk(2)
    losses = mean_of_known((probability - truth).square() * (of_truth + of_prediction), known)
    return (losses.log1p() if scale == "log" else losses).mean()


class HausdorffLoss(Loss):
    """Hausdorff loss; see `hausdorff_loss`.

    Args:
        alpha: Power of the distance.
        scale: `linear`, or the logarithm of 1 + the loss of each sample and class.
        include_background: Whether class 0 takes part in the mean.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Raises:
        UsageError: `alpha` is not positive.
    """

    usable_alone = False

    def __init__(
        self,
        *,
        alpha: float = 2.0,
        scale: Literal["linear", "log"] = "linear",
        include_background: bool = False,
        activation: Activation = "softmax",
    ) -> None:
        super().__init__()
        if alpha <= 0:
            raise UsageError(
                "the power of the distance must be positive",
                where="loss.alpha",
                why=f"{alpha} would not let errors count more the further they are off",
                mend="loss.alpha=2.0",
            )
        self.alpha = alpha
        self.scale: Literal["linear", "log"] = scale
        self.include_background = include_background
        self.activation: Activation = activation

    def forward(self, logits: Logits, target: Target) -> Float[Tensor, ""]:
        """Scalar >= 0."""
        return hausdorff_loss(
            logits,
            target.label,
            spacing=target.spacing,
            alpha=self.alpha,
            scale=self.scale,
            include_background=self.include_background,
            activation=self.activation,
        )

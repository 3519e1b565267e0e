"""Boundary loss: how far from the border the probability lies that is on its wrong side.

    loss = mean over samples, classes and annotated voxels of phi (p - y)

phi is the signed distance to the border of the class in mm, positive outside: a false alarm costs its distance to the
class, a miss its distance to the rest. That is the integral of Kervadec et al. with its constant, the sum over phi y,
so that the truth has 0. It approximates the squared distance between the two borders.

Edge cases: a class that a sample lacks, or is nothing but, has no border there and costs 0 whatever is predicted. An
ignored voxel neither counts nor is a border. No loss to use alone: an absent class may be predicted for nothing, and
where little of a class is there the gradient says little more than "less": beside Dice or cross-entropy.

Deviations: distances run between centres of voxels on both sides. Published code takes 1 from those inside, which has
no meaning in mm; its value for a spacing of 1 is smaller by the mean of y (1 - p).

Reference:
    Kervadec et al., Boundary loss for highly unbalanced segmentation (2019, 2021).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from segkit.losses.loss import Loss
from segkit.losses.probability_maps import mean_of_known, probability_maps, spacing_or_one
from segkit.losses.soft_counts import Activation
from segkit.ops.distance import signed_distance
from segkit.types import LabelBatch, Logits, Spacing, Target


def boundary_loss(
    logits: Logits,
    label: LabelBatch,
    *,
    spacing: Spacing | None = None,
    include_background: bool = False,
    activation: Activation = "softmax",
) -> Float[Tensor, ""]:
    """Mean distance of wrong probability from the border.

    Args:
        logits: (B, K, *S).
        label: (B, 1, *S) class indices; -1 is ignored.
        spacing: mm per voxel; None: 1.
        include_background: Whether class 0 takes part in the mean.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Returns:
        Scalar >= 0 in mm, float32 (float64 for float64 logits).
    """
    probability, truth, known = probability_maps(
        logits, label, activation=activation, include_background=include_background
    )
    with torch.no_grad():
        distance = signed_distance(truth > 0, spacing_or_one(spacing, logits), known=known)
    return mean_of_known(distance * (probability - truth), known).mean()


class BoundaryLoss(Loss):
    """Boundary loss; see `boundary_loss`.

    Args:
        include_background: Whether class 0 takes part in the mean.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.
    """

    usable_alone = False

    def __init__(self, *, include_background: bool = False, activation: Activation = "softmax") -> None:
        super().__init__()
        self.include_background = include_background
        self.activation: Activation = activation

    def forward(self, logits: Logits, target: Target) -> Float[Tensor, ""]:
        """Scalar >= 0 in mm."""
        return boundary_loss(
            logits,
            target.label,
            spacing=target.spacing,
            include_background=self.include_background,
            activation=self.activation,
        )

"""Band Dice: soft Dice of the voxels near borders beside that of all others, a weight each.

    loss = (w_b L(band) + w_r L(rest)) / (w_b + w_r)

L(part) is the soft Dice loss (`segkit.losses.dice`) over the voxels of a part alone. The band is every voxel within
`width` mm of a voxel of another class, whichever, on both sides of a border; the rest is all others, the inside of
large structures and the background far from any.

Edge cases: where the width is less than every spacing (that of a coarse level of deep supervision may be) no voxel is
that near to another, and the loss is soft Dice over all. A class that lies in the band with all its voxels is an absent
one in the rest, and an absent class is pulled to 0 as soft Dice does. An ignored voxel neither counts nor is a border.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from segkit.errors import UsageError
from segkit.losses.dice import DiceLoss
from segkit.losses.loss import Loss
from segkit.losses.probability_maps import spacing_or_one
from segkit.losses.soft_counts import Activation
from segkit.ops.distance import near
from segkit.types import LabelBatch, Logits, Spacing, Target


def boundary_band(label: LabelBatch, *, num_classes: int, width: float, spacing: Spacing) -> Bool[Tensor, "B 1 *S"]:
    """Annotated voxels within a distance of a voxel of another class.

        { v : min over u with y_u != y_v of || spacing * (v - u) || <= width }

    Args:
        label: (B, 1, *S) class indices; -1 is ignored.
        num_classes: K, background included.
        width: mm, from centre to centre: with a spacing of 1, a width of 1 is the voxels on both sides of a border.
        spacing: mm per voxel.

    Raises:
        ValueError: Not one positive spacing a spatial axis.
    """
    known = label >= 0
    band = torch.zeros_like(known)
    for index in range(num_classes):
        own = label == index
        band |= own & near(known & ~own, width, spacing)
    return band


class BandDiceLoss(Loss):
    """Soft Dice of the band along borders and of the rest; see the module.

    Args:
        width: Of the band, mm to either side of a border.
        band_weight: Weight of the band.
        rest_weight: Weight of all other voxels.
        batch_dice: Whether the sums run over the batch instead of over each sample.
        include_background: Whether class 0 takes part in the mean.
        smooth: Added to numerator and denominator.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Raises:
        UsageError: `width`, `smooth` or a weight is not positive.
    """

    def __init__(
        self,
        *,
        width: float = 3.0,
        band_weight: float = 1.0,
        rest_weight: float = 1.0,
        batch_dice: bool = False,
        include_background: bool = False,
        smooth: float = 1e-5,
        activation: Activation = "softmax",
    ) -> None:
        super().__init__()
        for name, value in (("width", width), ("band_weight", band_weight), ("rest_weight", rest_weight)):
            if value <= 0:
                raise UsageError(
                    f"{name} of band Dice must be positive",
                    where=f"loss.{name}",
                    why=f"found {value}; one part alone leaves the other to any prediction",
                    mend="loss=dice has no parts",
                )
        self.width, self.band_weight, self.rest_weight = width, band_weight, rest_weight
        self.dice = DiceLoss(
            batch_dice=batch_dice, include_background=include_background, smooth=smooth, activation=activation
        )

    def forward(self, logits: Logits, target: Target) -> Float[Tensor, ""]:
        """Scalar in [0, 1]."""
        spacing = spacing_or_one(target.spacing, logits)
        if self.width < min(spacing):
            whole: Tensor = self.dice(logits, target)
            return whole
        band = boundary_band(target.label, num_classes=logits.shape[1], width=self.width, spacing=spacing)

        def part(others: Tensor) -> Tensor:
            loss: Tensor = self.dice(logits, replace(target, label=target.label.masked_fill(others, -1)))
            return loss

        weighted = self.band_weight * part(~band) + self.rest_weight * part(band)
        return weighted / (self.band_weight + self.rest_weight)

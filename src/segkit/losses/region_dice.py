"""Region Dice: soft Dice of each connected component, averaged by class before the classes are averaged.

    loss = mean over images of (mean over classes c of (mean over components k of class c of (1 - D_k)))
         + mean over images without a component of (F / V)

D_k is that of `component_scores`, F / V the mean foreground probability of the background, left out for
`false_positives="none"`. A class with three lesions counts as much as one with a hundred, and a class without any in
the image not at all; with one class the loss is blob Dice without `batch_dice`. Means over images are taken over all
ranks.

Edge cases: as blob Dice. A component is of one class: given instances that span several count for the class nearest to
the mean of their labels.
"""

from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from segkit.losses.component_counts import component_counts
from segkit.losses.component_scores import (
    FalsePositives,
    component_dice,
    false_alarms,
    is_scored,
    mean_of,
    or_one,
    regions_for,
    require_settings,
    sum_of_means,
)
from segkit.losses.loss import FunctionLoss
from segkit.types import Logits, Target


def region_dice_loss(
    logits: Logits,
    target: Target,
    *,
    false_positives: FalsePositives = "voronoi",
    smooth: float = 1e-5,
    min_voxels: int = 1,
    activation: Literal["softmax", "sigmoid"] = "softmax",
) -> Float[Tensor, ""]:
    """One minus the soft Dice of the components, averaged over components, then classes, then images.

    Args:
        logits: (B, K, *S).
        target: With `cells` for `voronoi`, else with `instances`.
        false_positives: What background is held against a component.
        smooth: Added to numerator and denominator.
        min_voxels: Of the smallest component that counts.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Returns:
        Scalar >= 0, float32 (float64 for float64 logits).
    """
    counts = component_counts(logits, target, of=regions_for(false_positives), surprise=False, activation=activation)
    scored = is_scored(counts, min_voxels=min_voxels)
    missing = 1 - component_dice(counts, scored, false_positives=false_positives, smooth=smooth)
    index = (counts.classes / or_one(counts.inside.voxels)).round()[:, 1:, None]
    members = (index == torch.arange(1, logits.shape[1], device=index.device)) & scored[..., None]
    by_class, occurs = mean_of(missing[..., None].expand(members.shape), members, axis=1), members.any(1)
    found = (mean_of(by_class, occurs, axis=1), scored.any(1))
    return sum_of_means(found, false_alarms(counts, scored, false_positives=false_positives))


class RegionDiceLoss(FunctionLoss):
    """Soft Dice by connected component and class; see `region_dice_loss`.

    Args:
        false_positives: What background is held against a component.
        smooth: Added to numerator and denominator.
        min_voxels: Of the smallest component that counts.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Raises:
        UsageError: `smooth` is not positive, or `min_voxels` is below 1.
    """

    def __init__(
        self,
        *,
        false_positives: FalsePositives = "voronoi",
        smooth: float = 1e-5,
        min_voxels: int = 1,
        activation: Literal["softmax", "sigmoid"] = "softmax",
    ) -> None:
        require_settings(smooth=smooth, min_voxels=min_voxels)
        super().__init__(
            partial(
                region_dice_loss,
                false_positives=false_positives,
                smooth=smooth,
                min_voxels=min_voxels,
                activation=activation,
            )
        )
        self.needs = frozenset({regions_for(false_positives)})
        self.usable_alone = false_positives != "none"

"""Blob Dice: soft Dice of each connected component, so that a small one counts as much as a large one.

    loss = mean over components k of (1 - D_k) + mean over images without a component of (F / V)

D_k is that of `component_scores`, with what `false_positives` holds against each component; over Voronoi cells it is
CC-Dice, made soft. F / V is the mean foreground probability of the background, which the second part leaves out for
`false_positives="none"`. Components are averaged in each image and then over the images that have some, or with
`batch_dice` over those of the batch at once; both means are taken over all ranks.

Edge cases: components with fewer than `min_voxels` voxels in the patch are neither missed nor found. Where nothing is
annotated the loss is 0 with a gradient of 0. With `false_positives="none"` foreground everywhere costs nothing: that is
no loss to use alone.

Reference:
    Jaus et al., Every component counts, AAAI 2025 (the metric over cells).
"""

from functools import partial
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from segkit.losses.component_counts import component_counts
from segkit.losses.component_scores import (
    FalsePositives,
    component_dice,
    false_alarms,
    is_scored,
    mean_of,
    regions_for,
    require_settings,
    sum_of_means,
)
from segkit.losses.loss import FunctionLoss
from segkit.types import Logits, Target


def blob_dice_loss(
    logits: Logits,
    target: Target,
    *,
    false_positives: FalsePositives = "voronoi",
    batch_dice: bool = False,
    smooth: float = 1e-5,
    min_voxels: int = 1,
    activation: Literal["softmax", "sigmoid"] = "softmax",
) -> Float[Tensor, ""]:
    """One minus the mean soft Dice of the components.

    Args:
        logits: (B, K, *S).
        target: With `cells` for `voronoi`, else with `instances`.
        false_positives: What background is held against a component.
        batch_dice: Whether components are averaged over the batch at once, not image by image.
        smooth: Added to numerator and denominator.
        min_voxels: Of the smallest component that counts.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Returns:
        Scalar >= 0, float32 (float64 for float64 logits).
    """
    counts = component_counts(logits, target, of=regions_for(false_positives), surprise=False, activation=activation)
    scored = is_scored(counts, min_voxels=min_voxels)
    missing = 1 - component_dice(counts, scored, false_positives=false_positives, smooth=smooth)
    found = (missing, scored) if batch_dice else (mean_of(missing, scored, axis=1), scored.any(1))
    return sum_of_means(found, false_alarms(counts, scored, false_positives=false_positives))


class BlobDiceLoss(FunctionLoss):
    """Soft Dice by connected component; see `blob_dice_loss`.

    Args:
        false_positives: What background is held against a component.
        batch_dice: Whether components are averaged over the batch at once, not image by image.
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
        batch_dice: bool = False,
        smooth: float = 1e-5,
        min_voxels: int = 1,
        activation: Literal["softmax", "sigmoid"] = "softmax",
    ) -> None:
        require_settings(smooth=smooth, min_voxels=min_voxels)
        super().__init__(
            partial(
                blob_dice_loss,
                false_positives=false_positives,
                batch_dice=batch_dice,
                smooth=smooth,
                min_voxels=min_voxels,
                activation=activation,
            )
        )
        self.needs = frozenset({regions_for(false_positives)})
        self.usable_alone = false_positives != "none"

"""Connected-component Dice and cross-entropy: both within the Voronoi cell of each component (CC-DiceCE).

    loss = mean over images of (mean over components k of (1 - D_k + C_k))
         + mean over images without a component of (1 - s / (F + s) + C)

D_k is that of `component_scores` over cells, C_k the mean cross-entropy over the voxels of cell k. F and C are the sum
of the foreground probability and the mean cross-entropy over the image: its plain Dice and cross-entropy. Both means
over images are taken over all ranks, so that an image without a component takes nothing from the gradient of one that
has some. For sigmoid the cross-entropy is a mean over classes too.

Edge cases: components with fewer than `min_voxels` voxels in the patch are left out with their voxels. In an image
without a component the Dice part is close to 1, with hardly a gradient, until F has come down to s: its cross-entropy
is what teaches. Where nothing is annotated the loss is 0 with a gradient of 0. Logarithms are taken of logits: no
probability is clamped.

Reference:
    arXiv 2511.17146 (the loss); Jaus et al., Every component counts, AAAI 2025 (the cells). There the Dice of an image
    without a component is the constant 1.
"""

from functools import partial
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from segkit.losses.component_counts import component_counts
from segkit.losses.component_scores import (
    background_of_cells,
    component_dice,
    is_scored,
    mean_of,
    or_one,
    require_settings,
    sum_of_means,
    without_component,
)
from segkit.losses.loss import FunctionLoss
from segkit.types import Logits, Target

Empty = Literal["global", "nothing"]


def component_dice_ce_loss(
    logits: Logits,
    target: Target,
    *,
    empty: Empty = "global",
    smooth: float = 1e-5,
    min_voxels: int = 1,
    activation: Literal["softmax", "sigmoid"] = "softmax",
) -> Float[Tensor, ""]:
    """Mean over components of Dice loss and cross-entropy in the component's cell.

    Args:
        logits: (B, K, *S).
        target: With `cells`.
        empty: What an image without a component costs: `global`, its plain Dice and cross-entropy, or `nothing`.
        smooth: Added to numerator and denominator of the Dice.
        min_voxels: Of the smallest component that counts.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Returns:
        Scalar >= 0, float32 (float64 for float64 logits).
    """
    counts = component_counts(logits, target, of="cells", activation=activation)
    scored = is_scored(counts, min_voxels=min_voxels)
    logarithms = logits.shape[1] if activation == "sigmoid" else 1
    cell = background_of_cells(counts, scored)
    voxels = counts.inside.voxels[:, 1:] + cell.voxels
    surprise = (counts.inside.surprise[:, 1:] + cell.surprise) / (logarithms * or_one(voxels))
    dice = component_dice(counts, scored, false_positives="voronoi", smooth=smooth)
    found = (mean_of(1 - dice + surprise, scored, axis=1), scored.any(1))
    if empty == "nothing":
        return sum_of_means(found)
    foreground, surprise, voxels = (sums.sum(1) for sums in counts.outside)
    plain = 1 - smooth / (foreground + smooth) + surprise / (logarithms * or_one(voxels))
    return sum_of_means(found, (plain, without_component(counts, scored)))


class ComponentDiceCELoss(FunctionLoss):
    """Dice and cross-entropy by Voronoi cell; see `component_dice_ce_loss`.

    Args:
        empty: What an image without a component costs.
        smooth: Added to numerator and denominator of the Dice.
        min_voxels: Of the smallest component that counts.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Raises:
        UsageError: `smooth` is not positive, or `min_voxels` is below 1.
    """

    needs = frozenset({"cells"})

    def __init__(
        self,
        *,
        empty: Empty = "global",
        smooth: float = 1e-5,
        min_voxels: int = 1,
        activation: Literal["softmax", "sigmoid"] = "softmax",
    ) -> None:
        require_settings(smooth=smooth, min_voxels=min_voxels)
        super().__init__(
            partial(component_dice_ce_loss, empty=empty, smooth=smooth, min_voxels=min_voxels, activation=activation)
        )

"""Blob loss: Dice and cross-entropy of each connected component with the background, the other components left out.

    loss = mean over images that have a component of (mean over components k of (1 - D_k + C_k))

    D_k = (2 I_k + s) / (P_k + F + Y_k + s),    C_k = mean of -log p_y over the background and component k

I_k, P_k, Y_k are those of component k, F the foreground probability of all the background: a false positive is held
against every component. For sigmoid C_k is a mean over classes too. The paper adds it to the same loss of the whole
image, 2 to 1 (`loss=blob`); an image without a component costs nothing here, for there the other part teaches.

Modes:
    exclude     the paper's definition: voxels of other components do not enter.
    reference   the published code: their logits are set to 0 and their label to background, so that they enter with
                p_f = 1 - 1/K and -log p_y = log K (sigmoid: (K - 1)/2 and K log 2). For comparisons.

Edge cases: components with fewer than `min_voxels` voxels in the patch are left out; like foreground without an id they
are "other components" to the rest.

Reference:
    Kofler et al., blob loss: instance imbalance aware loss functions for semantic segmentation, IPMI 2023.
"""

import math
from functools import partial
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from segkit.losses.component_counts import component_counts
from segkit.losses.component_scores import is_scored, mean_of, or_one, require_settings, sum_of_means
from segkit.losses.loss import FunctionLoss
from segkit.types import Logits, Target

Mode = Literal["exclude", "reference"]


def blob_loss(
    logits: Logits,
    target: Target,
    *,
    mode: Mode = "exclude",
    smooth: float = 1e-5,
    min_voxels: int = 1,
    activation: Literal["softmax", "sigmoid"] = "softmax",
) -> Float[Tensor, ""]:
    """Mean over components of Dice loss and cross-entropy of the component with the background.

    Args:
        logits: (B, K, *S).
        target: With `instances`.
        mode: `exclude` leaves other components out, `reference` has them enter as the published code does.
        smooth: Added to numerator and denominator of the Dice.
        min_voxels: Of the smallest component that counts.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Returns:
        Scalar >= 0, float32 (float64 for float64 logits).
    """
    counts = component_counts(logits, target, of="instances", activation=activation)
    scored = is_scored(counts, min_voxels=min_voxels)
    present = counts.inside.voxels[:, 1:]
    foreground, surprise, voxels = (sums.sum(1, keepdim=True) for sums in counts.outside)
    if mode == "reference":
        classes = logits.shape[1]
        others = counts.inside.voxels.sum(1, keepdim=True) - present
        foreground = foreground + others * ((classes - 1) / 2 if activation == "sigmoid" else 1 - 1 / classes)
        surprise = surprise + others * (classes * math.log(2) if activation == "sigmoid" else math.log(classes))
        voxels = voxels + others
    foreground = foreground + counts.inside.foreground[:, 1:]
    surprise = surprise + counts.inside.surprise[:, 1:]
    voxels = voxels + present
    dice = (2 * counts.hit[:, 1:] + smooth) / (foreground + present + smooth)
    logarithms = logits.shape[1] if activation == "sigmoid" else 1
    by_component = 1 - dice + surprise / (logarithms * or_one(voxels))
    return sum_of_means((mean_of(by_component, scored, axis=1), scored.any(1)))


class BlobLoss(FunctionLoss):
    """Dice and cross-entropy by connected component; see `blob_loss`.

    Args:
        mode: `exclude` leaves other components out, `reference` has them enter as the published code does.
        smooth: Added to numerator and denominator of the Dice.
        min_voxels: Of the smallest component that counts.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Raises:
        UsageError: `smooth` is not positive, or `min_voxels` is below 1.
    """

    needs = frozenset({"instances"})

    def __init__(
        self,
        *,
        mode: Mode = "exclude",
        smooth: float = 1e-5,
        min_voxels: int = 1,
        activation: Literal["softmax", "sigmoid"] = "softmax",
    ) -> None:
        require_settings(smooth=smooth, min_voxels=min_voxels)
        super().__init__(partial(blob_loss, mode=mode, smooth=smooth, min_voxels=min_voxels, activation=activation))

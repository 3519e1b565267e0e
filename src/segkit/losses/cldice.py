"""clDice: overlap of centre lines, for vessels, airways, nerves and whatever else must not be torn.

    loss = 1 - mean over samples and classes of 2 Tprec Tsens / (Tprec + Tsens)

    Tprec = (sum of S(p) y + s) / (sum of S(p) + s)        how much of the predicted skeleton is in the truth
    Tsens = (sum of S(y) p + s) / (sum of S(y) + s)        how much of the true skeleton was predicted

Sums run over annotated voxels; S is the soft skeleton (`segkit.ops.soft_skeleton`), s the smoothing.

Edge cases: of an absent class Tsens is 1, and Tprec 1 as S(p) goes to 0. Foreground everywhere has no skeleton, for
nothing can be peeled off it, and scores 1 like the truth: no loss to use alone. An ignored voxel is neither structure
nor background. Skeletons are peeled by voxels; where these are not cubes it is faster along the longer axes.

Reference:
    Shit et al., clDice: a novel topology-preserving loss function for tubular structure segmentation (2021). There it
    is mixed with soft Dice, (1 - alpha) Dice + alpha clDice with alpha up to 0.5.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from segkit.errors import UsageError
from segkit.losses.loss import Loss, require_smoothing
from segkit.losses.probability_maps import probability_maps
from segkit.losses.soft_counts import Activation
from segkit.ops.soft_skeleton import soft_skeleton
from segkit.types import LabelBatch, Logits, Target


def cldice_loss(
    logits: Logits,
    label: LabelBatch,
    *,
    iterations: int = 3,
    include_background: bool = False,
    smooth: float = 1.0,
    activation: Activation = "softmax",
) -> Float[Tensor, ""]:
    """One minus the mean soft clDice.

    Args:
        logits: (B, K, *S).
        label: (B, 1, *S) class indices; -1 is ignored.
        iterations: Erosions of the skeleton; as many as the largest radius in voxels.
        include_background: Whether class 0 takes part in the mean.
        smooth: Voxels added to numerators and denominators; positive.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Returns:
        Scalar in [0, 1], float32 (float64 for float64 logits).
    """
    p, y, known = probability_maps(logits, label, activation=activation, include_background=include_background)
    axes = tuple(range(2, logits.ndim))
    with torch.no_grad():
        of_truth = soft_skeleton(y, iterations=iterations, known=known)
    of_prediction = soft_skeleton(p, iterations=iterations, known=known)
    precision = ((of_prediction * y).sum(axes) + smooth) / (of_prediction.sum(axes) + smooth)
    sensitivity = ((of_truth * p).sum(axes) + smooth) / (of_truth.sum(axes) + smooth)
    loss: Tensor = 1 - (2 * precision * sensitivity / (precision + sensitivity)).mean()
    return loss


class ClDiceLoss(Loss):
    """clDice loss; see `cldice_loss`.

    Args:
        iterations: Erosions of the skeleton; as many as the largest radius in voxels.
        include_background: Whether class 0 takes part in the mean.
        smooth: Voxels added to numerators and denominators.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Raises:
        UsageError: `iterations` is negative or `smooth` is not positive.
    """

    usable_alone = False

    def __init__(
        self,
        *,
        iterations: int = 3,
        include_background: bool = False,
        smooth: float = 1.0,
        activation: Activation = "softmax",
    ) -> None:
        super().__init__()
        if iterations < 0:
            raise UsageError(
                "a skeleton cannot be eroded less than not at all",
                where="loss.iterations",
                why=f"found {iterations}",
                mend="loss.iterations=3",
            )
        require_smoothing(smooth, suggested=1.0)
        self.iterations = iterations
        self.include_background = include_background
        self.smooth = smooth
        self.activation: Activation = activation

    def forward(self, logits: Logits, target: Target) -> Float[Tensor, ""]:
        """Scalar in [0, 1]."""
        return cldice_loss(
            logits,
            target.label,
            iterations=self.iterations,
            include_background=self.include_background,
            smooth=self.smooth,
            activation=self.activation,
        )

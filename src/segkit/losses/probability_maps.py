"""What losses that look at single voxels begin with: probabilities and truth, voxel by voxel."""

from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from segkit.losses.soft_counts import Activation
from segkit.losses.voxels import voxels
from segkit.types import LabelBatch, Logits, Spacing


class ProbabilityMaps(NamedTuple):
    """Float32 (float64 for float64 logits).

    Args:
        probability: Softmax or sigmoid of the logits; 0 where nobody annotated.
        truth: One-hot label, without a gradient; 0 where nobody annotated.
        known: Where somebody did.
    """

    probability: Float[Tensor, "B C *S"]
    truth: Float[Tensor, "B C *S"]
    known: Bool[Tensor, "B 1 *S"]


def probability_maps(
    logits: Logits, label: LabelBatch, *, activation: Activation, include_background: bool
) -> ProbabilityMaps:
    """Probabilities beside the truth, of all classes or of those but the first.

    Args:
        logits: (B, K, *S).
        label: (B, 1, *S) class indices; -1 is ignored.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.
        include_background: Whether class 0 is among them.

    Raises:
        RuntimeError: A label is none of the K classes; on CUDA when the device next reports.
    """
    first = 0 if include_background else 1
    x, truth, annotated = voxels(logits, label)
    probability = (x.softmax(1) if activation == "softmax" else x.sigmoid())[:, first:]
    known = annotated > 0
    # Chosen, not multiplied: the gradient there is 0 also where the product would not be.
    return ProbabilityMaps(probability.where(known, 0), truth[:, first:], known)


def mean_of_known(value: Float[Tensor, "B C *S"], known: Bool[Tensor, "B 1 *S"]) -> Float[Tensor, "B C"]:
    """Mean over the annotated voxels of each sample, of a map that is 0 elsewhere; 0 where there are none."""
    axes = tuple(range(2, value.ndim))
    return value.sum(axes) / known.sum(axes).clamp_min(1)


def spacing_or_one(spacing: Spacing | None, logits: Logits) -> Spacing:
    """The spacing of a target, 1 mm where it has none."""
    return (1.0,) * (logits.ndim - 2) if spacing is None else spacing

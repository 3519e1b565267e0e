"""Scores of single components, and their means over components, images and ranks: what instance-aware losses share.

    D_k = (2 I_k + s) / (P_k + F_k + Y_k + s)

I_k, P_k, Y_k are `hit`, foreground probability and voxels inside component k, F_k the foreground probability on the
background that is held against it, s the smoothing. What F_k is decides what false positives cost:

    none        F_k = 0                        nothing: foreground everywhere is a perfect answer
    background  F_k = F                        all of the background, against every component
    voronoi     F_k = that in the cell of k    each voxel against the component it is nearest to (in mm)

A cell may be in a patch without its component: cut off, lost on a coarse level of deep supervision, or below
`min_voxels`. Its background is shared equally among the components that are there, so that the total is the same as if
the cells had been drawn anew.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from segkit.errors import UsageError
from segkit.losses.component_counts import ComponentCounts, Regions, RegionSums
from segkit.losses.loss import require_smoothing
from segkit.ops.ranks import sum_over_ranks

FalsePositives = Literal["none", "background", "voronoi"]


def regions_for(false_positives: FalsePositives) -> Regions:
    """The regions to sum over; also the field of the target that a loss needs."""
    return "cells" if false_positives == "voronoi" else "instances"


def is_scored(counts: ComponentCounts, *, min_voxels: int = 1) -> Bool[Tensor, "B n"]:
    """Whether component 1 ... n has that many annotated voxels in the sample."""
    return counts.inside.voxels[:, 1:] >= min_voxels


def component_dice(
    counts: ComponentCounts, scored: Bool[Tensor, "B n"], *, false_positives: FalsePositives, smooth: float
) -> Float[Tensor, "B n"]:
    """D_k of each component; without meaning where it is not scored.

    Args:
        counts: Of the regions that `regions_for` names.
        scored: Components that are there.
        false_positives: What background is held against a component.
        smooth: s.
    """
    outside: Float[Tensor, "B m"] | float = 0.0
    if false_positives == "background":
        outside = counts.outside.foreground.sum(1, keepdim=True)
    if false_positives == "voronoi":
        outside = background_of_cells(counts, scored).foreground
    inside = counts.inside
    total = inside.foreground[:, 1:] + outside + inside.voxels[:, 1:]
    return (2 * counts.hit[:, 1:] + smooth) / (total + smooth)


def background_of_cells(counts: ComponentCounts, scored: Bool[Tensor, "B n"]) -> RegionSums:
    """Sums over the background of cell 1 ... n, with an equal share of that of the cells without a component here.

    Args:
        counts: Of cells.
        scored: Components that are there.
    """

    def shared(sums: Float[Tensor, "B R"]) -> Float[Tensor, "B n"]:
        cells = sums[:, 1:]
        nobodys = sums[:, 0] + (cells * ~scored).sum(1)
        return cells * scored + (nobodys / or_one(scored.sum(1)))[:, None]

    return RegionSums(*(shared(sums) for sums in counts.outside))


def without_component(counts: ComponentCounts, scored: Bool[Tensor, "B n"]) -> Bool[Tensor, "B"]:
    """Whether an image has background that is annotated, and no component."""
    return (counts.outside.voxels.sum(1) > 0) & ~scored.any(1)


def false_alarms(
    counts: ComponentCounts, scored: Bool[Tensor, "B n"], *, false_positives: FalsePositives
) -> tuple[Float[Tensor, "B"], Bool[Tensor, "B"]]:
    """F / V of each image, the mean foreground probability of its background, and whether it counts.

    It counts in images without a component, unless false positives cost nothing.
    """
    foreground, _, voxels = (sums.sum(1) for sums in counts.outside)
    empty = without_component(counts, scored)
    return foreground / or_one(voxels), torch.zeros_like(empty) if false_positives == "none" else empty


def mean_of(values: Shaped[Tensor, "*N"], counted: Bool[Tensor, "*N"], *, axis: int) -> Tensor:
    """Mean over an axis of those values that count; 0 where none does."""
    total: Tensor = (values * counted).sum(axis) / or_one(counted.sum(axis))
    return total


def sum_of_means(*parts: tuple[Tensor, Tensor]) -> Float[Tensor, ""]:
    """Sum of the means of some sets of values, each taken over the values that count, on all ranks.

    What counts in one set does not change the weight of what counts in another, nor does a rank without any: an image
    without a component takes nothing from the gradient of one that has some.

    Args:
        parts: Values, and whether each counts.
    """
    sums = [torch.stack([(values * counted).sum(), counted.sum().to(values.dtype)]) for values, counted in parts]
    totals, numbers = sum_over_ranks(torch.stack(sums)).unbind(1)
    return (totals / or_one(numbers)).sum()


def or_one(number: Tensor) -> Tensor:
    """The number of what was counted, or 1 where nothing was: then the sum over it is 0 too."""
    return number.clamp(min=1)


def require_settings(*, smooth: float, min_voxels: int) -> None:
    """Refuse settings that leave a score undefined.

    Raises:
        UsageError: `smooth` is not positive, or `min_voxels` is below 1.
    """
    require_smoothing(smooth)
    if min_voxels < 1:
        raise UsageError(
            "a component has at least one voxel",
            where="loss.min_voxels",
            why=f"found {min_voxels}",
            mend="loss.min_voxels=1",
        )

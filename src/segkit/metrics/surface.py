r"""Distances between the surfaces of reference and prediction, in the unit of the spacing, on the image's own grid.

That is mm, or pixels where the files know no mm (photographs): whoever prints a distance says which.

Elements of both surfaces come from `ops.surface_elements`. With d(a, B) the distance of element a to the nearest
element of B and w(a) its weight (its area; 1 where `weighting=voxel`), R the reference and P the prediction:

    HD95  = max( Q(R -> P), Q(P -> R) ),    Q(A -> B) the smallest d at which sum of w over {d(a, B) <= d} is 95 %
            `hausdorff=pooled`: the same quantile of both directions taken together
    ASSD  = ( sum_R w d + sum_P w d ) / ( sum_R w + sum_P w )
    NSD   = ( sum over d(r, P) <= t of w + sum over d(p, R) <= t of w ) / ( sum_R w + sum_P w )

What is undefined is never dropped silently:

    both empty           not applicable (NaN), counted
    one of them empty    distances infinite, NSD 0; reported as missed or invented

Reference: Nikolov et al., Clinically applicable segmentation of head and neck anatomy, JMIR 2021 (areas, NSD);
Maier-Hein, Reinke et al., Metrics reloaded, Nature Methods 2024.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from segkit.ops.surface_elements import surface_elements
from segkit.types import Spacing

Hausdorff = Literal["directed", "pooled"]
Weighting = Literal["area", "voxel"]
Found = Literal["both", "missed", "invented", "neither"]


def length_text(length: float, unit: str) -> str:
    """`1.5 mm`, `1 pixel`, `2 pixels`."""
    return f"{length:g} {unit}" + ("s" if unit == "pixel" and length != 1 else "")


@dataclass(frozen=True)
class SurfaceSettings:
    """Conventions, printed with every number that comes of them.

    Args:
        tolerance_mm: Distance up to which a surface counts as right (NSD), mm (pixels where the files know no mm).
        hausdorff: The larger of the two directed percentiles, or one percentile of both directions together.
        weighting: What an element counts: its area, or 1.
        percentile: Of HD95, in (0, 100].

    Raises:
        ValueError: A tolerance that is negative, or a percentile out of its range.
    """

    tolerance_mm: float = 1.0
    hausdorff: Hausdorff = "directed"
    weighting: Weighting = "area"
    percentile: float = 95.0

    def __post_init__(self) -> None:
        if not self.tolerance_mm >= 0:
            raise ValueError(f"tolerance_mm is {self.tolerance_mm}, but must not be negative")
        if not 0 < self.percentile <= 100:
            raise ValueError(f"percentile is {self.percentile}, but must lie in (0, 100]")

    def rule(self, unit: str = "mm") -> str:
        """The conventions in words.

        Args:
            unit: Of distances: "mm" or "pixel".
        """
        way = "larger of the two directed percentiles" if self.hausdorff == "directed" else "both directions pooled"
        weight = "weighted by area" if self.weighting == "area" else "each counting 1"
        return (
            f"surface elements between voxels, {weight}, border padded by a voxel; HD{self.percentile:g}: {way}; "
            f"NSD within {length_text(self.tolerance_mm, unit)}; one side empty: distance infinite, NSD 0"
        )


@dataclass(frozen=True)
class SurfaceDistances:
    """Surface metrics of one class in one case.

    Args:
        hd: Hausdorff distance at the settings' percentile, mm; infinite where one side is empty, NaN where both are.
        assd: Average symmetric surface distance, mm; likewise.
        nsd: Normalised surface Dice in [0, 1]; 0 where one side is empty, NaN where both are.
        found: Which sides are there.
    """

    hd: float
    assd: float
    nsd: float
    found: Found


def surface_distances(
    reference: Bool[np.ndarray, "*S"],
    prediction: Bool[np.ndarray, "..."],
    *,
    spacing: Spacing,
    settings: SurfaceSettings | None = None,
) -> SurfaceDistances:
    """HD95, ASSD and NSD of two masks.

    Args:
        reference: Mask (*S), two or three axes.
        prediction: Likewise.
        spacing: Size of a voxel, mm by axis.
        settings: Conventions; the defaults if not given.

    Raises:
        ValueError: Masks of different shape.
    """
    if reference.shape != prediction.shape:
        raise ValueError(f"masks of shape {reference.shape} and {prediction.shape}")
    # Not at the top: a training scores by voxels and lesions, and need not wait for this import.
    from scipy.spatial import KDTree  # noqa: PLC0415

    settings = settings or SurfaceSettings()
    points_r, area_r = surface_elements(reference, spacing)
    points_p, area_p = surface_elements(prediction, spacing)
    found = _found(len(points_r) > 0, len(points_p) > 0)
    if found == "neither":
        return SurfaceDistances(math.nan, math.nan, math.nan, found)
    if found != "both":
        return SurfaceDistances(math.inf, math.inf, 0.0, found)
    distance_r, distance_p = KDTree(points_p).query(points_r)[0], KDTree(points_r).query(points_p)[0]
    if settings.weighting == "voxel":
        area_r, area_p = np.ones_like(area_r), np.ones_like(area_p)
    distance, area = np.concatenate([distance_r, distance_p]), np.concatenate([area_r, area_p])
    share = settings.percentile / 100
    if settings.hausdorff == "pooled":
        hd = weighted_quantile(distance, area, share)
    else:
        hd = max(weighted_quantile(distance_r, area_r, share), weighted_quantile(distance_p, area_p, share))
    within = distance <= settings.tolerance_mm
    return SurfaceDistances(
        hd=hd,
        assd=float(np.sum(distance * area) / np.sum(area)),
        nsd=float(np.sum(area[within]) / np.sum(area)),
        found=found,
    )


def weighted_quantile(values: Float[np.ndarray, " N"], weights: Float[np.ndarray, " N"], share: float) -> float:
    """The smallest value at which the weight of all values up to it reaches `share` of the whole.

    Args:
        values: At least one.
        weights: Not negative, with a positive sum.
        share: In (0, 1].
    """
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    # Rounding of the sum must not push the quantile one value further.
    index = int(np.searchsorted(reached, share * reached[-1] * (1 - 1e-12)))
    return float(values[order[min(index, len(order) - 1)]])


def _found(reference: bool, prediction: bool) -> Found:
    if reference and prediction:
        return "both"
    if reference:
        return "missed"
    return "invented" if prediction else "neither"

"""Connected components of a mask."""

import math
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Int
from scipy import ndimage

from segkit.types import Spacing

Connectivity: TypeAlias = Literal["full", "faces"]
"""Voxels that share a corner are one component (8 neighbours in 2D, 26 in 3D), or only those that share a face."""

_ROUNDING = 1e-6
"""Of the product of three numbers of single precision, 6e-8 each at most, and room."""


def connected_components(
    mask: Bool[np.ndarray, "*S"], *, connectivity: Connectivity = "full"
) -> tuple[Int[np.ndarray, "*S"], int]:
    """Number the components of a mask.

    Args:
        mask: (*S), two or three axes.
        connectivity: `full` joins voxels that share a corner (8 neighbours in 2D, 26 in 3D); `faces` only those that
            share a face (4 and 6).

    Returns:
        Ids (*S) int32, 0 outside and 1 ... count inside, in scan order; and their count.
    """
    structure = ndimage.generate_binary_structure(mask.ndim, mask.ndim if connectivity == "full" else 1)
    ids, count = ndimage.label(mask, structure=structure)
    return ids.astype(np.int32, copy=False), int(count)


def size_unit(unit: str, dimensions: int) -> str:
    """What sizes of components are counted in: mm^3, mm^2, or pixels where the files know no mm.

    Args:
        unit: Of lengths: "mm" or "pixel".
        dimensions: Axes of the masks.
    """
    return "pixels" if unit == "pixel" else f"mm^{dimensions}"


def voxels_of_volume(volume: float, spacing: Spacing) -> int:
    """Voxels of the smallest component that is at least this large: ceil(V / voxel).

    A component of exactly V is large enough, whatever the rounding of the voxel's volume: files hold the spacing in
    single precision.

    Args:
        volume: V in mm^3 (mm^2 for two axes, pixels where the files know no mm).
        spacing: Size of a voxel by axis, mm.
    """
    return math.ceil(volume / math.prod(spacing) * (1 - _ROUNDING))

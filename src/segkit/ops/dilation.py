"""What lies within a distance of a mask, in mm whatever the voxels are like."""

import math

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from segkit.types import Spacing

_SLAB_VOXELS = 8_000_000


def within_distance(mask: Bool[np.ndarray, "*S"], distance: float, spacing: Spacing) -> Bool[np.ndarray, "*S"]:
    """Voxels whose centre is at most `distance` from the centre of a voxel of the mask; the mask's own among them.

        { v : min_{m in mask} || spacing * (v - m) || <= distance }

    An exact distance transform, by slabs of the first axis with as much beside them as the distance reaches: memory
    follows the slab, not the image.

    Args:
        mask: (*S).
        distance: 0 or more, mm (the unit of the spacing).
        spacing: Size of a voxel by axis.

    Returns:
        (*S); empty for an empty mask.

    Raises:
        ValueError: A negative distance, or not one positive spacing an axis.
    """
    if distance < 0 or len(spacing) != mask.ndim or min(spacing, default=0) <= 0:
        raise ValueError(f"a distance of {distance} with spacing {tuple(spacing)} round a mask of {mask.ndim} axes")
    result = np.zeros(mask.shape, dtype=bool)
    reach = [math.floor(distance / size * (1 + 1e-9)) for size in spacing]
    box = _box(mask, reach)
    if box is None:
        return result
    inside, out = mask[box], result[box]
    rows = max(1, _SLAB_VOXELS // max(1, math.prod(inside.shape[1:])))
    for start in range(0, inside.shape[0], rows):
        low, stop = max(0, start - reach[0]), min(inside.shape[0], start + rows)
        near = inside[low : stop + reach[0]]
        if near.any():
            apart = ndimage.distance_transform_edt(~near, sampling=spacing)
            # Spacings from headers are rounded: what is 5 mm away counts as 5 mm away.
            out[start:stop] = apart[start - low : stop - low] <= distance * (1 + 1e-6)
    return result


def _box(mask: Bool[np.ndarray, "*S"], reach: list[int]) -> tuple[slice, ...] | None:
    """The part of the grid that the mask and `reach` voxels round it lie in; None for an empty mask."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        return None
    return tuple(
        slice(max(0, part.start - more), min(size, part.stop + more))
        for part, more, size in zip(found[0], reach, mask.shape, strict=True)
    )

"""The smallest box that holds a mask, or several."""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Int
from scipy import ndimage

Slices: TypeAlias = tuple[slice, ...]


def bounding_box(mask: Bool[np.ndarray, "*S"]) -> Slices | None:
    """The smallest box with all of the mask; None where it is empty."""
    box = []
    for axis in range(mask.ndim):
        inside = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        if not len(inside):
            return None
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(box)


def boxes_of(label: Int[np.ndarray, "*S"]) -> Mapping[int, Slices]:
    """The box of each value above 0 that a label map holds, found in one pass over its voxels."""
    return {value: box for value, box in enumerate(ndimage.find_objects(label), start=1) if box is not None}


def union_box(*boxes: Slices | None) -> Slices | None:
    """The smallest box with all of the given ones; None where each of them is None."""
    there = [box for box in boxes if box is not None]
    if not there:
        return None
    return tuple(slice(min(a.start for a in axis), max(a.stop for a in axis)) for axis in zip(*there, strict=True))

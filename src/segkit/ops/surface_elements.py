r"""The surface of a mask as small elements, each with its area in mm^2 (length in mm for two axes).

The mask is seen as samples at voxel centres. Between each 2^D neighbouring centres lies one cell; a cell whose corners
are neither all inside nor all outside is crossed by the surface, and holds one element at the cell's centre. The 2^D
corners as bits make the cell's code; the area of the surface that halves the edges between inside and outside depends
on the code and the spacing alone. Reference: Nikolov et al., Clinically applicable segmentation of head and neck
anatomy, JMIR 2021; the table of areas is MONAI's.

The mask is padded by one voxel of background first, so that a structure that touches the border has a surface there.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from segkit.ops.bounding_box import bounding_box
from segkit.types import Spacing

Points = Float[np.ndarray, "N D"]
Areas = Float[np.ndarray, " N"]


def surface_elements(mask: Bool[np.ndarray, "*S"], spacing: Spacing) -> tuple[Points, Areas]:
    """Centre and area of each surface element.

    Args:
        mask: (*S), two or three axes.
        spacing: Size of a voxel, mm by axis.

    Returns:
        Centres (N, D) in mm, the centre of voxel 0 being the origin, in scan order; areas (N,) in mm^2, lengths in mm
        for two axes. Float64. Empty for an empty mask.

    Raises:
        ValueError: Not two or three axes, or not one spacing an axis.
    """
    if mask.ndim not in (2, 3) or len(spacing) != mask.ndim:
        raise ValueError(f"mask of {mask.ndim} axes with spacing {tuple(spacing)}; two or three axes are needed")
    box = bounding_box(mask)
    if box is None:
        return np.zeros((0, mask.ndim)), np.zeros(0)
    codes = _codes(np.pad(mask[box], 1))
    crossed = np.nonzero((codes > 0) & (codes < 2**2**mask.ndim - 1))
    area = _areas(tuple(float(s) for s in spacing))[codes[crossed]]
    # Cell 0 of the padded box lies between the voxels -1 and 0 of the box.
    offset = np.array([axis.start - 0.5 for axis in box])
    return (np.stack(crossed, axis=1) + offset) * np.asarray(spacing, dtype=np.float64), area


def _codes(padded: Bool[np.ndarray, "*S"]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Corners of each cell as bits, the first corner of the first axis the highest."""
    corners = list(np.ndindex(*(2,) * padded.ndim))
    size = tuple(n - 1 for n in padded.shape)
    codes = np.zeros(size, dtype=np.uint8)
    for corner in corners:
        codes <<= 1
        codes |= padded[tuple(slice(c, c + n) for c, n in zip(corner, size, strict=True))]
    return codes


@lru_cache(maxsize=64)
def _areas(spacing: tuple[float, ...]) -> Float[np.ndarray, " codes"]:
    """Area of the surface through a cell, by code; a read-only table."""
    # Not at the top: it brings in all of MONAI's metrics, which only this needs.
    from monai.metrics.utils import get_code_to_measure_table  # noqa: PLC0415

    table, kernel = get_code_to_measure_table(spacing)  # type: ignore[no-untyped-call]
    bits = np.asarray(kernel).reshape(-1).astype(int)
    by_code = np.zeros(len(table))
    for code in range(len(table)):
        corners = [code >> (len(bits) - 1 - k) & 1 for k in range(len(bits))]
        by_code[code] = float(table[int(np.dot(corners, bits))])
    by_code.setflags(write=False)
    return by_code

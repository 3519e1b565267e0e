"""What every reader asks of a header before it reads a voxel, and of a mask before it writes one."""

import math
from typing import Any, Final

import numpy as np
from jaxtyping import Float, Integer

from segkit.errors import DataError
from segkit.types import Size, Spacing

MAX_VOXELS: Final = 2_000_000_000
"""Images beyond this are refused by their header: a damaged size must not fill the memory."""

_MASK_DTYPES: Final = tuple(np.dtype(name) for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64"))


def require_extent(shape: Size, *, where: str) -> None:
    """Refuse empty, negative and absurdly large sizes.

    Raises:
        DataError: An axis has no voxel, or there are more than `MAX_VOXELS`.
    """
    bad = [f"axis {axis} has {size}" for axis, size in enumerate(shape) if size < 1]
    if bad:
        raise DataError(
            "the header gives an axis without voxels",
            where=where,
            why=f"{', '.join(bad)} voxels in {tuple(shape)}",
            mend="write the file again from its source; the header is damaged",
        )
    if math.prod(shape) > MAX_VOXELS:
        raise DataError(
            "the header announces more voxels than segkit reads",
            where=where,
            why=f"{' x '.join(map(str, shape))} = {math.prod(shape):.2g} voxels; the limit is {MAX_VOXELS:.0e}",
            mend="copy the file again if this size is wrong, else cut or resample the image",
        )


def require_affine(affine: Float[np.ndarray, "a a"], *, where: str) -> None:
    """Refuse an affine that does not say where the voxels are.

    Raises:
        DataError: Not finite, or singular: an axis of length 0, or two axes in one direction.
    """
    if not np.isfinite(affine).all():
        raise DataError(
            "the affine is not finite",
            where=where,
            why=f"it holds NaN or Inf: {affine.tolist()}",
            mend="write the file again with the scanner's geometry (sform or qform, spacing)",
        )
    lengths = np.linalg.norm(affine[:-1, :-1], axis=0)
    # The determinant of the unit directions: 1 for a right angle, 0 where two axes fall together.
    if (lengths == 0).any() or abs(np.linalg.det(affine[:-1, :-1] / lengths)) < 1e-4:
        raise DataError(
            "the affine is singular",
            where=where,
            why=f"spacings {lengths.tolist()} mm, matrix {affine[:-1, :-1].tolist()}",
            mend="write the file again with the scanner's geometry (sform or qform, spacing)",
        )


def spacing_of(affine: Float[np.ndarray, "a a"]) -> Spacing:
    """Length of a voxel along each axis: the column norms of the affine."""
    return tuple(float(length) for length in np.linalg.norm(affine[:-1, :-1], axis=0))


def planar_affine(affine: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "3 3"]:
    """The affine of a single slice in its own plane.

    A slice may lie obliquely in space, where two coordinates cannot say where it is. Its own frame can: spacing on
    the diagonal, and the position of the first voxel measured along the two edges.
    """
    edges = affine[:3, :2]
    lengths = np.linalg.norm(edges, axis=0)
    planar = np.eye(3)
    planar[:2, :2] = np.diag(lengths)
    planar[:2, 2] = (edges / lengths).T @ affine[:3, 3]
    return planar


def mask_dtype(own: np.dtype[Any], ids: Integer[np.ndarray, "*S"], *, allowed: tuple[str, ...] = ()) -> np.dtype[Any]:
    """Data type of a mask: the image's own where it holds every id exactly, else the smallest that does.

    Args:
        own: Type of the image.
        ids: The mask.
        allowed: Names of the types that the file format can store; every type where empty.

    Raises:
        DataError: No allowed type holds the ids.
    """
    low, high = (int(ids.min()), int(ids.max())) if ids.size else (0, 0)
    candidates = [own, *_MASK_DTYPES]
    for dtype in candidates:
        if (not allowed or dtype.name in allowed) and _holds(dtype, low) and _holds(dtype, high):
            return dtype
    raise DataError(
        "the file type of the image cannot hold the ids of the mask",
        why=f"ids {low} to {high}; the type stores {', '.join(allowed)}",
        mend="convert the images to NIfTI, NRRD or TIFF",
    )


def _holds(dtype: np.dtype[Any], value: int) -> bool:
    if dtype.kind == "b":
        return value in (0, 1)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return int(info.min) <= value <= int(info.max)
    # Every integer up to 2^(mantissa + 1) is exact in a floating-point type.
    return dtype.kind == "f" and abs(value) <= 2 ** (np.finfo(dtype).nmant + 1)

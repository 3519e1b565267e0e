"""Reading one case: its channels as one volume, its label as integers; every contradiction is a `DataError`."""

from dataclasses import replace

import numpy as np
from jaxtyping import Int

from segkit.data.readers import read
from segkit.errors import DataError
from segkit.types import Case, Volume

AFFINE_TOLERANCE = 1e-3
"""Entries of two affines may differ by this (mm, or mm per voxel): headers store single precision."""
INTEGER_TOLERANCE = 1e-3
"""A label stored as floating point may miss its integer by this: slopes are applied in single precision."""


def read_image(case: Case) -> Volume:
    """Read all channels of a case.

    Returns:
        One volume (C, *S); a file may hold one channel or all of them. `dtype` and `path` are the first file's.

    Raises:
        DataError: A file cannot be read, holds NaN or Inf, or lies elsewhere than the first.
    """
    volumes = [read(path, role="image", case=case.case_id) for path in case.images]
    for volume in volumes:
        require_finite(volume, case=case.case_id)
    first, *others = volumes
    for other in others:
        if mismatch := geometry_mismatch(first, other):
            raise DataError(
                "two channels of a case do not lie on one grid",
                where=f"case {case.case_id}, image {other.path}",
                why=f"{mismatch} against {first.path.name}",
                mend="resample the channel onto the first, or copy the header if only that is wrong",
            )
    return first if not others else replace(first, array=np.concatenate([volume.array for volume in volumes]))


def read_label(case: Case) -> tuple[Int[np.ndarray, "*S"], Volume]:
    """Read the label of a case.

    Returns:
        The values in the file as int32, (*S) in file order, and the volume they came from. Integers stored as
        floating point are accepted.

    Raises:
        DataError: There is none, it cannot be read, or its values are no integers.
    """
    if case.label is None:
        raise DataError(
            "the image has no label", where=f"case {case.case_id}", mend="add the label, or take the image out"
        )
    volume = read(case.label, role="label", case=case.case_id)
    return integer_values(volume, case=case.case_id), volume


def integer_values(volume: Volume, *, case: str = "") -> Int[np.ndarray, "*S"]:
    """The values of a label as int32, where they are integers to within `INTEGER_TOLERANCE`.

    Raises:
        DataError: Several channels, values that are not finite, fractions, values beyond 32 bits.
    """
    where = f"case {case}, label {volume.path}"
    if volume.array.shape[0] != 1:
        raise DataError(
            "the label has several channels",
            where=where,
            why=f"{volume.array.shape[0]} channels",
            mend="save one channel of class numbers",
        )
    values = volume.array[0]
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise DataError("the label holds NaN or Inf", where=where, mend="save the label as integers")
        rounded = np.rint(values)
        wrong = np.abs(values - rounded) > INTEGER_TOLERANCE
        if wrong.any():
            examples = ", ".join(f"{value:.4g}" for value in np.unique(values[wrong])[:4])
            raise DataError(
                "the label holds values that are no integers",
                where=where,
                why=f"{wrong.mean():.2%} of the voxels, such as {examples}",
                mend="resample labels by nearest neighbour, and save them as integers",
            )
        values = rounded
    if values.size and (values.max() > np.iinfo(np.int32).max or values.min() < np.iinfo(np.int32).min):
        raise DataError(
            "the label holds values beyond 32 bits",
            where=where,
            why=f"{values.min():.3g} to {values.max():.3g}",
            mend="save class numbers, not grey values or hashes",
        )
    return np.ascontiguousarray(values, dtype=np.int32)


def require_finite(volume: Volume, *, case: str = "") -> None:
    """Refuse NaN and Inf: one of them makes mean, loss and weights NaN.

    Raises:
        DataError: With the count and the fraction.
    """
    if volume.array.dtype.kind != "f":
        return
    wrong = int(volume.array.size - np.isfinite(volume.array).sum())
    if wrong:
        raise DataError(
            "the image holds NaN or Inf",
            where=f"case {case}, image {volume.path}",
            why=f"{wrong} voxels, {wrong / volume.array.size:.3%}",
            mend="replace them, for example by the value outside of the body: numpy.nan_to_num",
        )


def geometry_mismatch(first: Volume, second: Volume) -> str:
    """What parts two volumes that should lie on one grid, as half a sentence; "" where nothing does."""
    if first.spatial_shape != second.spatial_shape:
        return f"size {second.spatial_shape} against {first.spatial_shape}"
    if first.unit != second.unit or first.unit == "pixel":
        return ""  # a picture says nothing of where it lies
    if np.allclose(first.affine, second.affine, rtol=0, atol=AFFINE_TOLERANCE):
        return ""
    return f"affines that part by {corner_distance(first, second):.3g} mm at a corner of the image"


def corner_distance(first: Volume, second: Volume) -> float:
    """Largest distance in mm between the corners of two volumes of one size."""
    ends = [(0, size - 1) for size in first.spatial_shape]
    corners = np.stack([*np.meshgrid(*ends, indexing="ij"), np.ones((2,) * len(ends))]).reshape(len(ends) + 1, -1)
    apart = (first.affine - second.affine) @ corners
    return float(np.linalg.norm(apart[:-1], axis=0).max())

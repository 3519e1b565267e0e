"""Logits of all classes on the image's own voxels, a few rows at a time."""

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from segkit.ops.resample import linear_corners, nearest_index, resample_logits
from segkit.planning.rules import separate_axis
from segkit.types import Geometry, Size

_SLAB_VALUES = 4_000_000


def native_slabs(
    members: Sequence[Float[Tensor, "K ..."]], geometry: Geometry, *, max_values: int = _SLAB_VALUES
) -> Iterator[tuple[slice, Float[Tensor, "K ..."]]]:
    """Mean logits of the crop, slab after slab of its first axis.

    The values are those that `native_prediction` takes the largest of: each member resampled linearly to the crop, then
    the mean. Only the slab of each is ever made.

    Args:
        members: Logits (K, *S) of one network, or of several, each on the grid of its own plan.
        geometry: The way back; `crop` is what the logits cover.
        max_values: Values of a slab, unless one row alone has more.

    Yields:
        Rows of the crop, and their logits (K, rows, ...), float32.
    """
    size = tuple(stop - start for start, stop in geometry.crop)
    classes = members[0].shape[0]
    rows = max(1, max_values // max(1, classes * math.prod(size[1:])))
    apart = []
    for logits in members:
        grid = tuple(logits.shape[1:])
        coarse = tuple(s * n / g for s, n, g in zip(geometry.native_spacing, size, grid, strict=True))
        apart.append(separate_axis(geometry.native_spacing, coarse))
    for start in range(0, size[0], rows):
        part = slice(start, min(size[0], start + rows))
        total = resample_rows(members[0], size, part, separate_axis=apart[0]).float()
        for logits, axis in zip(members[1:], apart[1:], strict=True):
            total = total + resample_rows(logits, size, part, separate_axis=axis)
        yield part, total / len(members)


def resample_rows(
    logits: Float[Tensor, "K ..."], size: Size, rows: slice, *, separate_axis: int | None = None
) -> Float[Tensor, "K ..."]:
    """Some rows of `resample_logits(logits, size)`; linear interpolation is a product over the axes.

    Args:
        logits: (K, *S).
        size: Voxels of the whole result.
        rows: Which of its rows along the first spatial axis.
        separate_axis: Axis along which the nearest slice is taken instead.
    """
    here = tuple(logits.shape[1:])
    if here[0] == size[0]:
        taken = logits[:, rows]
    elif separate_axis == 0:
        taken = logits[:, torch.from_numpy(nearest_index(here[0], size[0])[rows])]
    else:
        column = (1, -1) + (1,) * (len(here) - 1)
        taken = sum(
            (
                logits[:, torch.from_numpy(index[rows])] * torch.from_numpy(weight[rows]).reshape(column)
                for index, weight in linear_corners(here[0], size[0])
            ),
            start=torch.zeros(()),
        )
    if here[1:] == tuple(size[1:]):
        return taken
    flat = taken.reshape(-1, *here[1:])
    within = separate_axis - 1 if separate_axis else None
    return resample_logits(flat, tuple(size[1:]), separate_axis=within).reshape(*taken.shape[:2], *size[1:])

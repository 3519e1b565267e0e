"""From logits on the plan's grid to classes of the image's own voxels."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from segkit.ops.resample import resample_logits
from segkit.planning.rules import separate_axis
from segkit.types import Geometry, Size, Spacing


def native_prediction(members: Sequence[Float[Tensor, "K ..."]], geometry: Geometry) -> Int[np.ndarray, "..."]:
    """Class of each voxel of the whole image, in RAS+ order; background outside the crop.

    The logits of each member are resampled linearly to the crop and averaged there (resampling is linear, so
    that members on one grid may as well be averaged before); then the largest wins, the lower class where two
    are equal. An axis along which the image was not interpolated on the way in is not on the way out either.
    One class is resampled at a time: memory does not grow with the number of classes.

    Args:
        members: Logits (K, *S) of one network, or of several, each on the grid of its own plan.
        geometry: The way back; `crop` is what the logits cover.

    Raises:
        ValueError: No member, or members with different numbers of classes.
    """
    if len({logits.shape[0] for logits in members}) != 1:
        raise ValueError(f"logits of {[logits.shape[0] for logits in members]} classes cannot be averaged")
    size = tuple(stop - start for start, stop in geometry.crop)
    apart = [_axis_apart(tuple(logits.shape[1:]), size, geometry.native_spacing) for logits in members]
    best = _native_class(members, 0, size=size, apart=apart)
    winner = torch.zeros(size, dtype=torch.int16)
    for index in range(1, members[0].shape[0]):
        candidate = _native_class(members, index, size=size, apart=apart)
        winner[candidate > best] = index
        torch.maximum(best, candidate, out=best)
    whole = np.zeros(geometry.native_shape, dtype=np.int16)
    whole[tuple(slice(start, stop) for start, stop in geometry.crop)] = winner.numpy()
    return whole


def _axis_apart(grid: Size, native: Size, spacing: Spacing) -> int | None:
    """The axis treated apart; the spacing of the grid follows from what both cover."""
    coarse = tuple(s * n / g for s, n, g in zip(spacing, native, grid, strict=True))
    return separate_axis(spacing, coarse)


def _native_class(members: Sequence[Tensor], index: int, *, size: Size, apart: Sequence[int | None]) -> Tensor:
    """Mean logit of one class on the native grid, a tensor of its own."""
    total = torch.zeros(size)
    for logits, axis in zip(members, apart, strict=True):
        total += resample_logits(logits[index : index + 1], size, separate_axis=axis)[0]
    return total / len(members)

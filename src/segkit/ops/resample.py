"""Resampling of whole images, labels and logits to another grid of the same extent.

Voxel i of n covers [i, i + 1] / n of the extent (pixel-area convention: torch's `align_corners=False`, skimage's
`resize`), so that the first and last voxel faces stay where they are; beyond the border the edge value continues.

Interpolation with a tensor-product kernel is one small matrix along each axis. Cubic B-splines, whose prefilter makes
every weight depend on every voxel of a line, become dense matrices this way, and a whole image costs three matrix
products.
"""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Integer
from scipy import ndimage
from torch import Tensor

from segkit.types import Size


def resample_image(
    array: Float[np.ndarray, "C *S"], size: Size, *, separate_axis: int | None = None
) -> Float[np.ndarray, "C *T"]:
    """Resample an image by cubic B-splines, clipped to the range of what was interpolated.

    The overshoot of a spline at an edge is cut at the range of the channel (of each slice, where an axis is treated
    separately), as nnU-Net's calls of skimage do.

    Args:
        array: (C, *S), any floating type; the result is float32.
        size: Voxels of the result along the spatial axes.
        separate_axis: Spatial axis along which the nearest slice is taken instead, for images whose spacing there is
            more than three times coarser; a spline across thick slices rings.

    Returns:
        (C, *size) float32.
    """
    image = np.ascontiguousarray(array, dtype=np.float32)
    here = image.shape[1:]
    if tuple(size) == here:
        return image.copy()
    axes = [axis for axis in range(len(here)) if axis != separate_axis]
    result = image
    changed = [axis for axis in axes if here[axis] != size[axis]]
    # Shrinking first leaves the later products with fewer voxels.
    for axis in sorted(changed, key=lambda axis: size[axis] / here[axis]):
        result = _product(_spline_matrix(here[axis], size[axis]), result, axis + 1)
    if changed:
        reduced = tuple(axis + 1 for axis in axes)
        low, high = image.min(axis=reduced, keepdims=True), image.max(axis=reduced, keepdims=True)
        result = np.clip(result, low, high)
    if separate_axis is not None and here[separate_axis] != size[separate_axis]:
        index = nearest_index(here[separate_axis], size[separate_axis])
        result = np.take(result, index, axis=separate_axis + 1)
    return np.ascontiguousarray(result, dtype=np.float32)


def resample_label(
    array: Integer[np.ndarray, "*S"], size: Size, *, separate_axis: int | None = None
) -> Integer[np.ndarray, "*T"]:
    """Resample a label: the value whose linearly interpolated one-hot is largest.

    Each of the 2^d corners votes for its value with its linear weight; the value with the largest sum wins, the larger
    value where two are equal, so that a foreground of half a voxel is not lost. The cost does not depend on the number
    of values, and -1 (ignored) or instance ids are values like any other.

    Args:
        array: (*S) integers.
        size: Voxels of the result.
        separate_axis: Axis along which the nearest slice is taken instead.

    Returns:
        (*size) of the same dtype.
    """
    here = array.shape
    if tuple(size) == here:
        return array.copy()
    corners = []
    for axis, (old, new) in enumerate(zip(here, size, strict=True)):
        if old == new or axis == separate_axis:
            corners.append([(nearest_index(old, new), np.ones(new, dtype=np.float32))])
        else:
            corners.append(linear_corners(old, new))
    result = np.empty(size, dtype=array.dtype)
    # By slabs of the first axis: eight corners of a whole body scan would not fit into memory.
    slab = max(1, 2_000_000 // max(1, int(np.prod(size[1:]))))
    for start in range(0, size[0], slab):
        part = slice(start, start + slab)
        first = [(index[part], weight[part]) for index, weight in corners[0]]
        result[part] = _vote(array, [first, *corners[1:]])
    return result


def resample_logits(
    logits: Float[Tensor, "K *S"], size: Size, *, separate_axis: int | None = None
) -> Float[Tensor, "K *T"]:
    """Resample logits linearly (`align_corners=False`); a separate axis by nearest neighbour.

    Args:
        logits: (K, *S).
        size: Voxels of the result.
        separate_axis: Axis along which the nearest slice is taken instead.

    Returns:
        (K, *size) of the same dtype and device.
    """
    here = tuple(logits.shape[1:])
    if tuple(size) == here:
        return logits
    linear = list(size)
    if separate_axis is not None:
        linear[separate_axis] = here[separate_axis]
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(here)]
    result = F.interpolate(logits[None], size=linear, mode=mode, align_corners=False)[0]
    if separate_axis is not None and here[separate_axis] != size[separate_axis]:
        index = torch.from_numpy(nearest_index(here[separate_axis], size[separate_axis]))
        result = result.index_select(separate_axis + 1, index.to(logits.device))
    return result


def nearest_index(old: int, new: int) -> Int[np.ndarray, "new"]:
    """Source voxel whose centre is nearest to each of `new` voxels: floor((i + 1/2) old / new)."""
    index = np.floor((np.arange(new) + 0.5) * (old / new)).astype(np.int64)
    nearest: np.ndarray = np.minimum(index, old - 1)
    return nearest


def _vote(array: Integer[np.ndarray, "*S"], corners: list[list[tuple[np.ndarray, np.ndarray]]]) -> np.ndarray:
    values: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    for combination in np.ndindex(*(len(axis) for axis in corners)):
        chosen = [axis[k] for axis, k in zip(corners, combination, strict=True)]
        values.append(array[np.ix_(*(index for index, _ in chosen))])
        weight = np.ones((), dtype=np.float32)
        for axis, (_, line) in enumerate(chosen):
            weight = weight * line.reshape([-1 if k == axis else 1 for k in range(len(chosen))])
        weights.append(weight)
    winner, best = values[0], np.full(values[0].shape, -1.0, dtype=np.float32)
    for value in values:
        votes = np.zeros(value.shape, dtype=np.float32)
        for other, weight in zip(values, weights, strict=True):
            votes += weight * (other == value)
        # Sums of float32 weights in different orders differ in the last digits; a tie is a tie all the same.
        tie = np.abs(votes - best) <= 1e-5
        take = np.where(tie, value > winner, votes > best)
        winner, best = np.where(take, value, winner), np.where(take, votes, best)
    return winner


def linear_corners(old: int, new: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(index, weight) of the voxel below and of the one above each target centre, edge continued."""
    position = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    below = np.minimum(np.floor(position).astype(np.int64), max(old - 2, 0))
    above = np.minimum(below + 1, old - 1)
    fraction = (position - below).astype(np.float32)
    return [(below, 1 - fraction), (above, fraction)]


@lru_cache(maxsize=256)
def _spline_matrix(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """The (new, old) matrix of cubic B-spline interpolation with continued edges: what it does to unit vectors."""
    order = min(3, old - 1)
    columns = [
        ndimage.zoom(unit, new / old, order=order, mode="nearest", grid_mode=True, prefilter=order > 1)
        for unit in np.eye(old)
    ]
    matrix: np.ndarray = np.stack(columns, axis=1).astype(np.float32)
    return matrix


def _product(matrix: Float[np.ndarray, "m n"], array: np.ndarray, axis: int) -> np.ndarray:
    """Matrix product along one axis, which keeps its place."""
    product: np.ndarray = np.moveaxis(np.tensordot(matrix, array, axes=(1, axis)), 0, axis)
    return product

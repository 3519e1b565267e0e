"""Linear operators that act along one axis of an image at a time: a few neighbours a voxel, whole planes at once."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor


def take_along_axis(images: Shaped[Tensor, "..."], axis: int, index: Int[np.ndarray, "new"]) -> Shaped[Tensor, "..."]:
    """The slices `index` of an axis, in that order."""
    return images.index_select(axis, torch.from_numpy(index).to(images.device, non_blocking=True))


def lerp_along_axis(
    images: Float[Tensor, "..."],
    axis: int,
    below: Int[np.ndarray, "new"],
    above: Int[np.ndarray, "new"],
    fraction: Float[np.ndarray, "new"],
) -> Float[Tensor, "..."]:
    """Linear interpolation along an axis: slice i of the result is (1 - f_i) x[below_i] + f_i x[above_i].

    Args:
        images: Any shape.
        axis: The axis that changes.
        below: Slice whose weight is 1 - fraction.
        above: Slice whose weight is fraction.
        fraction: In [0, 1].

    Returns:
        The same shape but for `axis`, which gets the length of `below`.
    """
    weight = torch.from_numpy(fraction.astype(np.float32)).to(images.device, non_blocking=True)
    shape = [-1 if k == axis % images.ndim else 1 for k in range(images.ndim)]
    low = take_along_axis(images, axis, below)
    return low.add_(take_along_axis(images, axis, above).sub_(low).mul_(weight.reshape(shape)))


def convolve_along_axis(images: Float[Tensor, "..."], axis: int, weights: Sequence[float]) -> Float[Tensor, "..."]:
    """Convolution of an axis with an even kernel, mirrored at the centres of the end voxels.

        y_i = w_0 x_i + sum over k >= 1 of w_k (x_(i-k) + x_(i+k))

    Sums of shifted images: a kernel of a few voxels reads each voxel a few times from the cache, where a convolution
    of one channel cannot use what makes convolutions fast.

    Args:
        images: Any shape.
        axis: The axis that is convolved.
        weights: w_0 to w_r.

    Returns:
        The same shape.
    """
    length, radius = images.shape[axis], len(weights) - 1
    period = max(1, 2 * (length - 1))
    beyond = np.abs(np.concatenate([np.arange(-radius, 0), np.arange(length, length + radius)])) % period
    beyond = np.minimum(beyond, period - beyond)
    ends = [take_along_axis(images, axis, part) for part in (beyond[:radius], beyond[radius:])]
    padded = torch.cat([ends[0], images, ends[1]], dim=axis)
    result = images * weights[0]
    for k, weight in enumerate(weights[1:], start=1):
        pair = padded.narrow(axis, radius - k, length) + padded.narrow(axis, radius + k, length)
        result.add_(pair, alpha=weight)
    return result

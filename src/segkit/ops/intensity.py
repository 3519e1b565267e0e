"""Statistics of an image inside a mask, for each sample and channel."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Statistics:
    """Moments and range inside the mask, each (B, C, 1, ...) so that they broadcast against the image.

    Where a mask is empty the mean, minimum and maximum are 0 and so is the standard deviation.
    """

    mean: Float[Tensor, "B C *one"]
    std: Float[Tensor, "B C *one"]
    minimum: Float[Tensor, "B C *one"]
    maximum: Float[Tensor, "B C *one"]


def mean(image: Float[Tensor, "B C *S"], valid: Bool[Tensor, "B 1 *S"] | None = None) -> Float[Tensor, "B C *one"]:
    """Mean over the valid voxels of each channel, (B, C, 1, ...); 0 where none is valid."""
    axes = tuple(range(2, image.ndim))
    if valid is None:
        return image.mean(axes, keepdim=True)
    return image.masked_fill(~valid, 0).sum(axes, keepdim=True) / _count(valid)


def moments(
    image: Float[Tensor, "B C *S"], valid: Bool[Tensor, "B 1 *S"] | None = None
) -> tuple[Float[Tensor, "B C *one"], Float[Tensor, "B C *one"]]:
    """Mean and population standard deviation over the valid voxels of each channel.

    Two passes (mean first, then the squared distance to it), since E[x^2] - E[x]^2 loses all digits in float32 where
    the mean is large against the spread.

    Args:
        image: (B, C, *S).
        valid: (B, 1, *S), or None for every voxel. What lies outside is never read into the result, NaN included.

    Returns:
        Mean and standard deviation, (B, C, 1, ...).
    """
    axes = tuple(range(2, image.ndim))
    centre = mean(image, valid)
    squared = (image - centre).square_()
    if valid is None:
        return centre, squared.mean(axes, keepdim=True).sqrt_()
    variance = squared.masked_fill_(~valid, 0).sum(axes, keepdim=True) / _count(valid)
    return centre, variance.sqrt_()


def extrema(
    image: Float[Tensor, "B C *S"], valid: Bool[Tensor, "B 1 *S"] | None = None
) -> tuple[Float[Tensor, "B C *one"], Float[Tensor, "B C *one"]]:
    """Minimum and maximum over the valid voxels of each channel, (B, C, 1, ...); 0 where none is valid."""
    axes = tuple(range(2, image.ndim))
    if valid is None:
        return image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
    low = image.masked_fill(~valid, torch.inf).amin(axes, keepdim=True)
    high = image.masked_fill(~valid, -torch.inf).amax(axes, keepdim=True)
    empty = low > high
    return low.masked_fill_(empty, 0), high.masked_fill_(empty, 0)


def statistics(image: Float[Tensor, "B C *S"], valid: Bool[Tensor, "B 1 *S"] | None = None) -> Statistics:
    """Moments and range over the valid voxels of each sample and channel.

    Args:
        image: (B, C, *S).
        valid: (B, 1, *S), or None for every voxel.

    Returns:
        Mean, standard deviation, minimum, maximum, each (B, C, 1, ...).
    """
    centre, std = moments(image, valid)
    minimum, maximum = extrema(image, valid)
    return Statistics(mean=centre, std=std, minimum=minimum, maximum=maximum)


def _count(valid: Bool[Tensor, "B 1 *S"]) -> Tensor:
    """Number of valid voxels, at least 1, so that an empty mask gives 0 and not NaN."""
    return valid.sum(tuple(range(2, valid.ndim)), keepdim=True).clamp_(min=1)

"""Resample patches of a batch through linear maps: images linearly, labels and ids by nearest neighbour.

One set of source coordinates serves every field of a sample, so an image and its label cannot part.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from segkit.types import Size


@dataclass(frozen=True)
class Sampling:
    """Where each voxel of the patches comes from.

    Args:
        grid: Normalised source coordinates for `grid_sample`, last axis first.
        index: Flat index of the nearest source voxel.
        inside: Whether that voxel exists.
    """

    grid: Float[Tensor, "N *T d"]
    index: Int[Tensor, "N *T"]
    inside: Bool[Tensor, "N *T"]


def patch_centre(source_size: Size, patch_size: Size) -> tuple[float, ...]:
    """Source coordinate of the middle of the centre crop, in voxels.

    Half a voxel off the middle of the source where the two sizes differ by an odd number: the identity map must give
    the crop itself, not an interpolation of it.
    """
    return tuple((s - p) // 2 + (p - 1) / 2 for s, p in zip(source_size, patch_size, strict=True))


def make_sampling(matrices: Float[Tensor, "N d d"], source_size: Size, patch_size: Size) -> Sampling:
    """Source coordinates x = centre + A (i - (patch - 1) / 2), axes in the order of the tensor, in voxels.

    Args:
        matrices: A of each sample: offsets from the patch's middle to offsets in the source.
        source_size: Voxels of the source.
        patch_size: Voxels of the patches.

    Returns:
        The sampling of all N patches.
    """
    dimensions, device = len(patch_size), matrices.device
    centre = patch_centre(source_size, patch_size)
    offsets = []
    for axis, size in enumerate(patch_size):
        line = torch.arange(size, device=device, dtype=torch.float32) - (size - 1) / 2
        offsets.append(line.reshape([1, *(size if k == axis else 1 for k in range(dimensions))]))
    grid = torch.empty((matrices.shape[0], *patch_size, dimensions), device=device)
    shape = grid.shape[:-1]
    index = torch.zeros(shape, dtype=torch.long, device=device)
    inside = torch.ones(shape, dtype=torch.bool, device=device)
    for row, (size, middle) in enumerate(zip(source_size, centre, strict=True)):
        weights = matrices[:, row].reshape([matrices.shape[0], dimensions, *([1] * dimensions)])
        position = weights[:, 0] * offsets[0] + middle
        for axis in range(1, dimensions):
            position = position + weights[:, axis] * offsets[axis]
        grid[..., dimensions - 1 - row] = position.mul(2 / size).add_(1 / size - 1)
        nearest = position.round_()
        bounded = nearest.clamp(0, size - 1)
        inside &= bounded == nearest
        # Added up in int64: a float32 index is exact only to 2^24 voxels.
        index.mul_(size).add_(bounded.long())
    return Sampling(grid=grid, index=index, inside=inside)


def sample_linear(image: Float[Tensor, "N C *S"], sampling: Sampling) -> Float[Tensor, "N C *T"]:
    """Interpolate linearly; the edge value continues for half a voxel, beyond it is 0.

    Beyond the outermost centres there is nothing to interpolate with; blending into zeros there, as `grid_sample`
    does by default, would darken a rim that counts as image.
    """
    sampled = F.grid_sample(image, sampling.grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.masked_fill_(~sampling.inside[:, None], 0)


def sample_nearest(field: Shaped[Tensor, "N C *S"], sampling: Sampling) -> Shaped[Tensor, "N C *T"]:
    """Take the nearest voxel, of any dtype and without rounding; 0 (False) where there is none."""
    count, channels = field.shape[:2]
    index = sampling.index.flatten(1)[:, None].expand(count, channels, -1)
    taken = field.flatten(2).gather(2, index).reshape(count, channels, *sampling.index.shape[1:])
    return taken.masked_fill_(~sampling.inside[:, None], 0)


def centre_crop(field: Shaped[Tensor, "B C *S"], size: Size, axes: Sequence[int] | None = None) -> Tensor:
    """A view of the middle of the spatial axes (of those in `axes` only, if given)."""
    for axis, (have, want) in enumerate(zip(field.shape[2:], size, strict=True)):
        if axes is None or axis in axes:
            field = field.narrow(axis + 2, (have - want) // 2, want)
    return field


def fold(field: Shaped[Tensor, "B C *S"], axis: int | None) -> Shaped[Tensor, "B D *T"]:
    """Move one spatial axis into the channels, (B, C, ...) to (B, C Z, ...), so that slices are treated alike."""
    return field if axis is None else field.movedim(axis + 2, 2).flatten(1, 2)


def unfold(field: Shaped[Tensor, "B D *T"], axis: int | None, channels: int) -> Shaped[Tensor, "B C *S"]:
    """The inverse of `fold`."""
    return field if axis is None else field.reshape(len(field), channels, -1, *field.shape[2:]).movedim(2, axis + 2)

"""Grids made finer and coarser by whole factors, with a backward pass that is deterministic on every device.

CUDA has no deterministic backward for trilinear interpolation and for three-dimensional max-pooling, and a run that is
resumed to the bit needs one: there, and on other devices, both are written out. Processors take torch's kernels, which
need a fifth (pooling) to a half (upsampling) of the time.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from segkit.networks.instance_norm import CHANNELS_LAST

LINEAR = {4: "bilinear", 5: "trilinear"}
MAX_POOL = {4: F.max_pool2d, 5: F.max_pool3d}


def upsample_linear(features: Float[Tensor, "B C *S"], factor: Sequence[int]) -> Float[Tensor, "B C *T"]:
    """Linear upsampling by whole factors, voxel centres kept (`align_corners=False`).

    Args:
        features: (B, C, *S).
        factor: Fine voxels to a coarse one, by axis.
    """
    if max(factor) == 1:
        return features
    if features.device.type == "cpu":
        return F.interpolate(features, scale_factor=tuple(float(f) for f in factor), mode=LINEAR[features.ndim])
    return shifted_sums(features, factor)


def shifted_sums(features: Float[Tensor, "B C *S"], factor: Sequence[int]) -> Float[Tensor, "B C *T"]:
    """`upsample_linear` as weighted sums of the features and their neighbours, one axis after another."""
    for axis, step in enumerate(factor, start=2):
        if step == 1:
            continue
        length = features.shape[axis]
        first, last = features.narrow(axis, 0, 1), features.narrow(axis, length - 1, 1)
        before = torch.cat((first, features.narrow(axis, 0, length - 1)), axis)
        after = torch.cat((features.narrow(axis, 1, length - 1), last), axis)
        fine = []
        for position in range(step):
            # Centre of this fine voxel, in coarse voxels from the centre of the coarse one that holds it.
            offset = (position + 0.5) / step - 0.5
            neighbour = before if offset < 0 else after
            fine.append(features * (1 - abs(offset)) + neighbour * abs(offset))
        features = torch.stack(fine, axis + 1).flatten(axis, axis + 1)
    return features


def downsample_linear(features: Float[Tensor, "B C *S"], factor: Sequence[int]) -> Float[Tensor, "B C *T"]:
    """Linear sampling at the centres of a grid that is coarser by whole factors (`align_corners=False`).

    Along an axis of an even factor the centre of a coarse voxel lies between the two innermost fine ones, whose mean is
    taken; of an odd factor, in the innermost one. The other voxels are not read: this samples, it does not average.

    Args:
        features: (B, C, *S); axes divisible by the factor.
        factor: Fine voxels to a coarse one, by axis.
    """
    for axis, step in enumerate(factor, start=2):
        if step == 1:
            continue
        shape = features.shape
        blocks = features.reshape(*shape[:axis], -1, step, *shape[axis + 1 :])
        centre = blocks.select(axis + 1, step // 2)
        features = centre if step % 2 else (blocks.select(axis + 1, step // 2 - 1) + centre) / 2
    return features


def block_max(features: Float[Tensor, "B C *S"], factor: Sequence[int]) -> Float[Tensor, "B C *T"]:
    """Maximum over blocks of `factor` voxels: max-pooling.

    Among voxels that are equally large the gradient goes to the first on processors and is shared on other devices.

    Args:
        features: (B, C, *S); axes divisible by the factor.
        factor: Voxels of a block, by axis.
    """
    if max(factor) == 1:
        return features
    if features.device.type == "cpu":
        return MAX_POOL[features.ndim](features, tuple(factor))
    return shared_max(features, factor)


def shared_max(features: Float[Tensor, "B C *S"], factor: Sequence[int]) -> Float[Tensor, "B C *T"]:
    """`block_max` whose gradient is shared by the largest voxels of a block."""
    # Over a view with the channels last where they lie so: a maximum of torch's would rearrange them.
    last = features.is_contiguous(memory_format=CHANNELS_LAST[features.ndim]) and not features.is_contiguous()
    blocks = features.movedim(1, -1) if last else features
    within: list[int] = []
    for axis, step in enumerate(factor, start=1 if last else 2):
        if step > 1:
            place = axis + len(within)
            blocks = blocks.reshape(*blocks.shape[:place], -1, step, *blocks.shape[place + 1 :])
            within.append(place + 1)
    maximum = blocks.amax(within) if within else blocks
    return maximum.movedim(-1, 1) if last else maximum

"""Transposed convolution whose kernel is its stride, as a matrix product where that is faster.

With kernel = stride the outputs of two voxels do not overlap: each coarse voxel x makes a block of fine voxels,

    y[block voxel k] = W_k^T x + bias,

one product of the (voxels, C) features with the (C, blocks * D) weights and a rearrangement. On processors, with the
channels last, where both are views, that takes 0.4 of the time of the library's own kernels in bfloat16 (forward and
backward), whose backward is the slowest of all layers for its work. Elsewhere torch's own is kept.
"""

from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segkit.networks.instance_norm import CHANNELS_LAST


def _product(layer: nn.ConvTranspose2d | nn.ConvTranspose3d, features: Tensor) -> Tensor | None:
    """The upsampled features, channels last, where the product is faster than torch's kernel; else None."""
    bias, ours = layer.bias, features.device.type == "cpu"
    if bias is None or not ours or not features.is_contiguous(memory_format=CHANNELS_LAST[features.ndim]):
        return None
    axes, stride, width = features.ndim - 2, tuple(layer.stride), layer.out_channels
    spatial = tuple(range(2, axes + 2))
    last = features.permute(0, *spatial, 1)
    batch, *grid = last.shape[:-1]
    weight = layer.weight.permute(0, *spatial, 1).reshape(layer.in_channels, -1)
    repeated = bias.repeat(weight.shape[1] // width)
    blocks = torch.addmm(repeated, last.reshape(-1, layer.in_channels), weight).view(batch, *grid, *stride, width)
    # (batch, coarse voxel, voxel of the block, channel): the two voxel indices of an axis become one.
    interleaved = chain.from_iterable((1 + axis, 1 + axes + axis) for axis in range(axes))
    fine = tuple(size * step for size, step in zip(grid, stride, strict=True))
    out = blocks.permute(0, *interleaved, 2 * axes + 1).reshape(batch, *fine, width)
    return out.permute(0, axes + 1, *range(1, axes + 1))


class TransposedConv2d(nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` with the stride for a kernel."""

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int]) -> None:
        super().__init__(in_channels, out_channels, stride, stride=stride)

    def forward(
        self, input: Float[Tensor, "B C H W"], output_size: list[int] | None = None
    ) -> Float[Tensor, "B D Y X"]:
        """(B, C, *S) to (B, D, *S * stride); the memory format stays."""
        out = _product(self, input) if output_size is None else None
        return super().forward(input, output_size) if out is None else out


class TransposedConv3d(nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d` with the stride for a kernel."""

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int, int]) -> None:
        super().__init__(in_channels, out_channels, stride, stride=stride)

    def forward(
        self, input: Float[Tensor, "B C D H W"], output_size: list[int] | None = None
    ) -> Float[Tensor, "B E Z Y X"]:
        """(B, C, *S) to (B, E, *S * stride); the memory format stays."""
        out = _product(self, input) if output_size is None else None
        return super().forward(input, output_size) if out is None else out

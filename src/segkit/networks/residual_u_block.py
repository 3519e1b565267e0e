"""The residual U-block (RSU) of U^2-Net and UIU-Net: a small U-Net in the place of a convolution, beside a shortcut.

    x_0 = B(x),   out = x_0 + U(x_0),   B = ReLU(norm(conv))

U goes down one convolution block a level, through one more block of larger dilation at the bottom, and back up, where
each block reads the level below and its own skip. A level is reached by max-pooling (RSU-L, which has L - 1 of them) or
by a larger dilation on the same grid (RSU-4F).

Reference:
    Qin et al., U^2-Net: Going Deeper with Nested U-Structure for Salient Object Detection, Pattern Recognition 106
    (2020).

Deviations: instance instead of batch normalisation (a batch of one trains); pooling by any stride, of a grid that it
divides (there: by 2, rounded up).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segkit.networks.blocks import convolution, instance_norm
from segkit.networks.rescaling import block_max, upsample_linear
from segkit.types import Size

DILATIONS = (1, 2, 4, 8)
"""Of RSU-4F: its three levels and its bottom."""
BOTTOM_DILATION = 2
"""Of RSU-L, whose levels have none."""


class ReluBlock(nn.Module):
    """ReLU(norm(conv(x))), the grid as it was."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: Size, dilation: int = 1) -> None:
        super().__init__()
        self.conv = convolution(in_channels, out_channels, kernel_size=kernel_size, dilation=dilation)
        self.norm = instance_norm(out_channels, len(kernel_size))
        self.nonlin = nn.ReLU(inplace=True)

    def forward(self, features: Float[Tensor, "B C *S"]) -> Float[Tensor, "B D *S"]:
        """(B, C, *S) to (B, D, *S)."""
        out: Tensor = self.nonlin(self.norm(self.conv(features)))
        return out


class ResidualUBlock(nn.Module):
    """A U-Net within a block.

    Args:
        in_channels: Channels of the input.
        mid_channels: Channels inside the U.
        out_channels: Channels of the output.
        kernel_sizes: Kernel of each level of the U and axis.
        strides: Stride before each level of the U and axis; the first is 1.
        dilations: Of each level of the U, and of its bottom, which has the grid of the last level.
    """

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        out_channels: int,
        *,
        kernel_sizes: Sequence[Size],
        strides: Sequence[Size],
        dilations: Sequence[int],
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.project = ReluBlock(in_channels, out_channels, kernel_size=kernel_sizes[0])
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        *levels, bottom = dilations
        for level, (kernel, dilation) in enumerate(zip(kernel_sizes, levels, strict=True)):
            finer = out_channels if level == 0 else mid_channels
            self.down.append(ReluBlock(finer, mid_channels, kernel_size=kernel, dilation=dilation))
            self.up.append(ReluBlock(2 * mid_channels, finer, kernel_size=kernel, dilation=dilation))
        self.bottom = ReluBlock(mid_channels, mid_channels, kernel_size=kernel_sizes[-1], dilation=bottom)

    def forward(self, image: Float[Tensor, "B C *S"]) -> Float[Tensor, "B D *S"]:
        """(B, C, *S) to (B, D, *S); axes divisible by the product of the strides."""
        shortcut = features = self.project(image)
        skips = []
        for block, stride in zip(self.down, self.strides, strict=True):
            features = block(block_max(features, stride))
            skips.append(features)
        features = self.bottom(features)
        for block, stride, skip in zip(reversed(self.up), reversed(self.strides), reversed(skips), strict=True):
            features = upsample_linear(block(torch.cat((features, skip), 1)), stride)
        out: Tensor = features + shortcut
        return out


def pooled_u_block(
    in_channels: int, mid_channels: int, out_channels: int, *, kernel_sizes: Sequence[Size], strides: Sequence[Size]
) -> ResidualUBlock:
    """RSU-L, with a level for each stride: L = levels + 1.

    Args:
        in_channels: Channels of the input.
        mid_channels: Channels inside the U.
        out_channels: Channels of the output.
        kernel_sizes: Kernel of each level and axis.
        strides: Stride before each level and axis; the first is 1.
    """
    return ResidualUBlock(
        in_channels,
        mid_channels,
        out_channels,
        kernel_sizes=kernel_sizes,
        strides=strides,
        dilations=(*(1,) * len(strides), BOTTOM_DILATION),
    )


def dilated_u_block(in_channels: int, mid_channels: int, out_channels: int, *, kernel_size: Size) -> ResidualUBlock:
    """RSU-4F: one grid throughout, dilations 1, 2, 4 and, at the bottom, 8.

    Args:
        in_channels: Channels of the input.
        mid_channels: Channels inside the U.
        out_channels: Channels of the output.
        kernel_size: By axis.
    """
    levels = len(DILATIONS) - 1
    return ResidualUBlock(
        in_channels,
        mid_channels,
        out_channels,
        kernel_sizes=(kernel_size,) * levels,
        strides=((1,) * len(kernel_size),) * levels,
        dilations=DILATIONS,
    )

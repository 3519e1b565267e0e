"""Attention gates of Attention U-Net: the decoder says where a skip connection is worth reading.

The grid gate decides on the grid of the gating signal g, the decoder's next coarser level, onto which theta strides the
skip x:

    a   = sigmoid(psi(ReLU(theta(x) + phi(g))))       on the grid of g
    out = norm(W(x * upsample(a)))                    on the grid of x

The gate at equal resolution decides on the grid of x, from u, the coarser level after its upsampling:

    a   = sigmoid(norm(psi(ReLU(norm(theta(x)) + norm(phi(u))))))
    out = x * a

Reference:
    Oktay et al., Attention U-Net: Learning Where to Look for the Pancreas (2018), for the grid gate. The gate at equal
    resolution is the form in which MONAI's AttentionUnet and many others have it.

Deviations: instance instead of batch normalisation, as everywhere in this U-Net (a batch of one trains); theta's kernel
is the plan's stride, so that it meets the grid of g exactly on anisotropic images too; one gate a level. At equal
resolution the 1-voxel convolutions before a normalisation have no bias, which it would cancel.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from segkit.networks.blocks import CONVOLUTION, ConvBlock, convolution, instance_norm
from segkit.networks.rescaling import upsample_linear

Gate: TypeAlias = Literal["grid", "equal_resolution"]


class AttentionGate(nn.Module):
    """The grid gate. Weights a skip connection by an attention map between 0 and 1.

    Args:
        skip_channels: Channels of the skip x.
        gate_channels: Channels of the gating signal g.
        stride: Voxels of x to one of g, by axis.
    """

    def __init__(self, skip_channels: int, gate_channels: int, *, stride: Sequence[int]) -> None:
        super().__init__()
        inner = max(1, skip_channels // 2)
        one = (1,) * len(stride)
        self.stride = tuple(stride)
        self.theta = CONVOLUTION[len(one)](skip_channels, inner, self.stride, stride=self.stride, bias=False)
        self.phi = convolution(gate_channels, inner, kernel_size=one)
        self.psi = convolution(inner, 1, kernel_size=one)
        self.out = nn.Sequential(
            convolution(skip_channels, skip_channels, kernel_size=one), instance_norm(skip_channels, len(one))
        )

    def forward(self, skip: Float[Tensor, "B C *S"], gate: Float[Tensor, "B D *T"]) -> Float[Tensor, "B C *S"]:
        """The skip, weighted."""
        out: Tensor = self.out(skip * self.attention(skip, gate))
        return out

    def attention(self, skip: Float[Tensor, "B C *S"], gate: Float[Tensor, "B D *T"]) -> Float[Tensor, "B 1 *S"]:
        """The attention map on the skip's grid, for use and for pictures."""
        coarse = torch.sigmoid(self.psi(F.relu(self.theta(skip) + self.phi(gate))))
        return upsample_linear(coarse, self.stride)


class EqualResolutionGate(nn.Module):
    """The gate at equal resolution. Weights a skip connection by an attention map between 0 and 1.

    Args:
        skip_channels: Channels of the skip x.
        gate_channels: Channels of the upsampled signal u, on the grid of x.
        dimensions: Spatial axes.
    """

    def __init__(self, skip_channels: int, gate_channels: int, *, dimensions: int) -> None:
        super().__init__()
        inner = max(1, skip_channels // 2)
        one = (1,) * dimensions
        self.theta = ConvBlock(skip_channels, inner, kernel_size=one, bias=False, activation=False)
        self.phi = ConvBlock(gate_channels, inner, kernel_size=one, bias=False, activation=False)
        self.psi = ConvBlock(inner, 1, kernel_size=one, bias=False, activation=False)

    def forward(self, skip: Float[Tensor, "B C *S"], upsampled: Float[Tensor, "B D *S"]) -> Float[Tensor, "B C *S"]:
        """The skip, weighted."""
        return skip * self.attention(skip, upsampled)

    def attention(self, skip: Float[Tensor, "B C *S"], upsampled: Float[Tensor, "B D *S"]) -> Float[Tensor, "B 1 *S"]:
        """The attention map on the skip's grid, for use and for pictures."""
        return torch.sigmoid(self.psi(F.relu(self.theta(skip) + self.phi(upsampled))))

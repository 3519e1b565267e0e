"""The grid attention gate of Attention U-Net: the decoder says where a skip connection is worth reading.

    a   = sigmoid(psi(ReLU(theta(x) + phi(g))))       on the grid of g
    out = norm(W(x * upsample(a)))                    on the grid of x

x is the skip, g the gating signal from the decoder's next coarser level; theta strides x onto the grid of g.

Reference:
    Oktay et al., Attention U-Net: Learning Where to Look for the Pancreas (2018).

Deviations: instance instead of batch normalisation, as everywhere in this U-Net (a batch of one trains); theta's kernel
is the plan's stride, so that it meets the grid of g exactly on anisotropic images too; one gate a level.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from segkit.networks.blocks import CONVOLUTION, convolution, instance_norm


class AttentionGate(nn.Module):
    """Weights a skip connection by an attention map between 0 and 1.

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


def upsample_linear(features: Float[Tensor, "B C *S"], factor: Sequence[int]) -> Float[Tensor, "B C *T"]:
    """Linear upsampling by whole factors, voxel centres kept (`align_corners=False`).

    Written as shifted weighted sums, one axis after another, because CUDA has no deterministic backward for trilinear
    interpolation, and a run that is resumed to the bit needs one.
    """
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

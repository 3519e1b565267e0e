"""Interactive-cross attention of UIU-Net: deep and shallow features of one grid weight each other, then are joined.

    h = ReLU(norm(W x))                                            deep features, on the grid of the skip
    t = sigmoid(W2 LeakyReLU(W1 mean(h)))                          a weight a channel, from the whole image
    s = sigmoid(conv([mean_c(b), max_c(b)])),  b = ReLU(norm(W3 (t * l)))         a weight a voxel, from the skip l
    out = [post(2 t * l), post(2 s * h)],      post = ReLU(norm(conv))            the same for both

with mean over the voxels, mean_c and max_c over the channels, W 1-voxel convolutions, [., .] along the channels.

Reference:
    Wu et al., UIU-Net: U-Net in U-Net for Infrared Small Object Detection, IEEE TIP 32 (2023); Dai et al., Asymmetric
    Contextual Modulation for Infrared Small Target Detection (WACV 2021).

Deviations: instance instead of batch normalisation, and none of the channel weights: each is one number a sample, of
which a batch of one has no variance. That is 2 (C + C / 4) parameters less. LeakyReLU between W1 and W2, for without a
normalisation nothing would bring a unit back that is negative for every image.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from segkit.networks.blocks import NEGATIVE_SLOPE, convolution, instance_norm
from segkit.types import Size

REDUCTION = 4
"""Channels to one of the bottleneck."""


class InteractiveCrossAttention(nn.Module):
    """Deep and shallow features of C channels each to 2 C.

    Args:
        channels: C.
        kernel_size: Of the two spatial convolutions, by axis.
    """

    def __init__(self, channels: int, *, kernel_size: Size) -> None:
        super().__init__()
        axes = len(kernel_size)
        one = (1,) * axes
        inner = max(1, channels // REDUCTION)
        self.deep = nn.Sequential(
            convolution(channels, channels, kernel_size=one), instance_norm(channels, axes), nn.ReLU(inplace=True)
        )
        self.squeeze = convolution(channels, inner, kernel_size=one)
        self.excite = convolution(inner, channels, kernel_size=one)
        self.reduce = nn.Sequential(
            convolution(channels, inner, kernel_size=one), instance_norm(inner, axes), nn.ReLU(inplace=True)
        )
        self.locate = convolution(2, 1, kernel_size=kernel_size, bias=False)
        self.post = nn.Sequential(
            convolution(channels, channels, kernel_size=kernel_size),
            instance_norm(channels, axes),
            nn.ReLU(inplace=True),
        )

    def forward(self, deep: Float[Tensor, "B C *S"], skip: Float[Tensor, "B C *S"]) -> Float[Tensor, "B D *S"]:
        """Both, weighted by each other: the skip in the first C channels, the deep features in the last."""
        deep = self.deep(deep)
        skip = skip * self.channel_weights(deep)
        return torch.cat((self.post(2 * skip), self.post(2 * deep * self.voxel_weights(skip))), 1)

    def channel_weights(self, deep: Float[Tensor, "B C *S"]) -> Float[Tensor, "B C *T"]:
        """What the deep features say of each channel, between 0 and 1: (B, C, 1, ...)."""
        means = deep.mean(tuple(range(2, deep.ndim)), keepdim=True)
        return torch.sigmoid(self.excite(F.leaky_relu(self.squeeze(means), NEGATIVE_SLOPE)))

    def voxel_weights(self, skip: Float[Tensor, "B C *S"]) -> Float[Tensor, "B 1 *S"]:
        """What the skip says of each voxel, between 0 and 1."""
        reduced = self.reduce(skip)
        if (
            reduced.shape[1] == 1
        ):  # both are the channel itself; torch 2.13 compiles a maximum over one to a wrong gradient
            found = torch.cat((reduced, reduced), 1)
        else:
            found = torch.cat((reduced.mean(1, keepdim=True), reduced.amax(1, keepdim=True)), 1)
        return torch.sigmoid(self.locate(found))

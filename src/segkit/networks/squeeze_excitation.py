"""Squeeze-and-excitation: a weight for each channel, from the mean of all channels over the image.

    z   = mean of x over the voxels                    (B, C)
    s   = sigmoid(W2 ReLU(W1 z + b1) + b2)             (B, C), between 0 and 1
    out = x * s                                        (B, C, *S)

W1 leads to C / reduction numbers, W2 back to C.

Reference:
    Hu et al., Squeeze-and-Excitation Networks (2018).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

REDUCTION = 16
"""As in the paper."""


class SqueezeExcitation(nn.Module):
    """Weights channels.

    Args:
        channels: C.
        reduction: C over the width of the hidden layer, which has at least one unit.
    """

    def __init__(self, channels: int, *, reduction: int = REDUCTION) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.squeeze = nn.Linear(channels, inner)
        self.excite = nn.Linear(inner, channels)

    def forward(self, features: Float[Tensor, "B C *S"]) -> Float[Tensor, "B C *S"]:
        """(B, C, *S), weighted."""
        weights = self.weights(features)
        return features * weights.reshape(*weights.shape, *(1,) * (features.ndim - 2))

    def weights(self, features: Float[Tensor, "B C *S"]) -> Float[Tensor, "B C"]:
        """The weight of each channel."""
        mean = features.flatten(2).mean(2)
        return torch.sigmoid(self.excite(F.relu(self.squeeze(mean))))

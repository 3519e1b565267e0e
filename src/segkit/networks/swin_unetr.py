"""Swin UNETR: a shifted-window transformer as encoder and a convolutional decoder, in MONAI's implementation.

Reference:
    Hatamizadeh et al., Swin UNETR: Swin Transformers for Semantic Segmentation of Brain Tumors in MRI Images (2022).

Deviations: any image size (MONAI's takes multiples of 32); the width is 1.5 times the plan's first stage in multiples
of 12, so that 32 gives the paper's 48: 62,186,757 weights in three dimensions with one channel and three classes. MONAI
asks for the package einops to move axes, which segkit does not depend on: where it is missing, `permute` does the same.
"""

import importlib.util
from collections.abc import Sequence

import torch
from monai.networks.nets import swin_unetr
from torch import Tensor

from segkit.networks.monai_adapter import MonaiNetwork, halved_levels

_LEVELS = 6
_HEAD_CHANNELS = 12
"""Features come in multiples of this: three attention heads of four channels in the finest stage at least."""


def permuted(tensor: Tensor, pattern: str) -> Tensor:
    """The axes in another order, as `einops.rearrange` of a pattern like "b c h w -> b h w c"."""
    before, after = (side.split() for side in pattern.split("->"))
    return tensor.permute([before.index(axis) for axis in after])


if importlib.util.find_spec("einops") is None:
    # MONAI's stand-in for it only raises.
    swin_unetr.rearrange = permuted


class SwinUNETR(MonaiNetwork):
    """Swin UNETR in two or three dimensions.

    Args:
        in_channels: Channels of the image.
        num_classes: Channels of the logits, background included.
        features: The plan's channels by stage; the first decides the width.
        dimensions: Spatial axes, 2 or 3.
        depths: Transformer blocks of each of the four stages.
        window_size: Edge of the attention windows, voxels of a stage.
        residual: Whether a residual convolution block precedes each stage (the second version of MONAI's).
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        features: Sequence[int],
        dimensions: int,
        depths: Sequence[int] = (2, 2, 2, 2),
        window_size: int = 7,
        residual: bool = False,
    ) -> None:
        device = torch.get_default_device()
        with torch.device("cpu"):  # its constructor reads numbers from a tensor, which one without memory has not
            network = swin_unetr.SwinUNETR(
                in_channels=in_channels,
                out_channels=num_classes,
                feature_size=width(features[0]),
                depths=tuple(depths),
                window_size=window_size,
                use_v2=residual,
                spatial_dims=dimensions,
            )
        network.to(device)
        levels = halved_levels(_LEVELS, dimensions)
        super().__init__(network, level_strides=levels[:1], divisor=levels[-1], deep_supervision=False)


def width(first: int) -> int:
    """Channels of the finest stage: 1.5 times the plan's, to the nearest multiple of 12, at least 12."""
    return _HEAD_CHANNELS * max(1, round(1.5 * first / _HEAD_CHANNELS))

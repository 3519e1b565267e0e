"""FlexibleUNet: a U-Net decoder on an encoder of the classifiers' family, in MONAI's implementation.

Encoders are EfficientNets (`efficientnet-b0` to `-b8`) and ResNets (`resnet10` to `resnet200`), in two or three
dimensions. Their weights may come from a file on this machine (`encoder_weights`); MONAI's own way of downloading them
is never taken.

Reference:
    Tan and Le, EfficientNet (2019); He et al., Deep Residual Learning (2016).

Deviations: any image size; on request, and in the YAML, the channels of a sample are normalised in eight groups instead
of over the batch; the classifier of an EfficientNet, which the decoder does not read, is not built, so that b0 in two
dimensions with three input channels and two classes has 5,367,262 of MONAI's 7,060,422 weights. Widths are the
encoder's, not the plan's.
"""

import math
from collections.abc import Sequence
from typing import Literal

from monai.networks.nets import flexible_unet
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from segkit.errors import UsageError
from segkit.networks.encoder_weights import load_encoder_weights
from segkit.networks.monai_adapter import MonaiNetwork, halved_levels

_GROUPS = 8
"""Of channels, or as many as divide them; they divide those of every encoder, and a group of these has two values or
more where a map is down to a voxel."""
_CLASSIFIER = ("_conv_head_padding", "_conv_head", "_bn1", "_avg_pooling", "_dropout", "_fc")


class FlexibleUNet(MonaiNetwork):
    """FlexibleUNet in two or three dimensions.

    Args:
        in_channels: Channels of the image.
        num_classes: Channels of the logits, background included.
        dimensions: Spatial axes, 2 or 3.
        backbone: Name of the encoder, as in MONAI.
        decoder_channels: Channels of each decoder level, coarsest first.
        encoder_weights: File of the encoder's initial weights; None: random ones.
        norm: Over what features are normalised: `batch`, as published weights were learnt, or `group`, an eighth of the
            channels of a sample. Five halvings leave a patch of 32 voxels a single one; over those of two patches the
            statistics of a batch say nothing of another one.

    Raises:
        UsageError: The file cannot be read, does not fit the encoder, or is given beside `norm=group`.
        ValueError: MONAI has no such encoder.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        dimensions: int,
        backbone: str = "efficientnet-b0",
        decoder_channels: Sequence[int] = (256, 128, 64, 32, 16),
        encoder_weights: str | None = None,
        norm: Literal["batch", "group"] = "batch",
    ) -> None:
        if encoder_weights and norm != "batch":
            raise UsageError(
                "published weights were learnt with a normalisation over the batch",
                where="network.encoder_weights",
                why=f"network.norm is {norm}",
                mend="network.norm=batch",
            )
        network = flexible_unet.FlexibleUNet(
            in_channels,
            num_classes,
            backbone,
            pretrained=False,
            decoder_channels=tuple(decoder_channels),
            spatial_dims=dimensions,
            # Whole multiples of the strides come in: nothing is left to pad, and torch 2.13 does not compile it.
            is_pad=False,
        )
        for name in _CLASSIFIER:
            if hasattr(network.encoder, name):
                delattr(network.encoder, name)
        if encoder_weights:
            load_encoder_weights(network.encoder, encoder_weights)
        if norm == "group":
            normalise_by_group(network)
        # Each feature map of an encoder has half the voxels of the one before, the first of the image.
        levels = 1 + flexible_unet.FLEXUNET_BACKBONE.register_dict[backbone]["feature_number"]
        strides = halved_levels(levels, dimensions)
        super().__init__(network, level_strides=strides[:1], divisor=strides[-1], deep_supervision=False)


def normalise_by_group(network: nn.Module) -> None:
    """Put a normalisation of a sample's channels in eight groups in the place of each over the batch; names stay."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                setattr(
                    parent, name, nn.GroupNorm(math.gcd(_GROUPS, child.num_features), child.num_features, eps=child.eps)
                )

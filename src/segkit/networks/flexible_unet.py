"""FlexibleUNet: a U-Net decoder on an encoder of the classifiers' family, in MONAI's implementation.

Encoders are EfficientNets (`efficientnet-b0` to `-b8`) and ResNets (`resnet10` to `resnet200`), in two or three
dimensions. Their weights may come from a file on this machine (`encoder_weights`); MONAI's own way of downloading them
is never taken.

Reference:
    Tan and Le, EfficientNet (2019); He et al., Deep Residual Learning (2016).

Deviations: any image size; the classifier of an EfficientNet, which the decoder does not read, is not built, so that b0
in two dimensions with three input channels and two classes has 5,367,262 of MONAI's 7,060,422 weights. Widths are the
encoder's, not the plan's.
"""

from collections.abc import Sequence

from monai.networks.nets import flexible_unet

from segkit.networks.encoder_weights import load_encoder_weights
from segkit.networks.monai_adapter import MonaiNetwork, halved_levels

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

    Raises:
        UsageError: The file cannot be read, or does not fit the encoder.
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
    ) -> None:
        network = flexible_unet.FlexibleUNet(
            in_channels,
            num_classes,
            backbone,
            pretrained=False,
            decoder_channels=tuple(decoder_channels),
            spatial_dims=dimensions,
        )
        for name in _CLASSIFIER:
            if hasattr(network.encoder, name):
                delattr(network.encoder, name)
        if encoder_weights:
            load_encoder_weights(network.encoder, encoder_weights)
        # Each feature map of an encoder has half the voxels of the one before, the first of the image.
        levels = 1 + flexible_unet.FLEXUNET_BACKBONE.register_dict[backbone]["feature_number"]
        strides = halved_levels(levels, dimensions)
        super().__init__(network, level_strides=strides[:1], divisor=strides[-1], deep_supervision=False)

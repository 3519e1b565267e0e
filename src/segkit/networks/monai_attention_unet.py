"""MONAI's AttentionUnet: gates at equal resolution, batch normalisation, no deep supervision.

`network=attention_unet` is segkit's own, with either gate, instance normalisation and deep supervision.

Reference:
    Oktay et al., Attention U-Net: Learning Where to Look for the Pancreas (2018).

Deviations: any image size; channels and strides are the plan's, anisotropic ones too. With channels 16 to 256, one
input channel and four classes it has MONAI's 5,909,164 weights in three dimensions.
"""

from collections.abc import Sequence

from monai.networks.nets import attentionunet

from segkit.networks.encoder_decoder import check_topology, cumulative_strides
from segkit.networks.monai_adapter import MonaiNetwork


class MonaiAttentionUnet(MonaiNetwork):
    """MONAI's AttentionUnet in two or three dimensions.

    Args:
        in_channels: Channels of the image.
        num_classes: Channels of the logits, background included.
        features: Channels of each stage, finest first.
        strides: Stride of each stage and axis; the first is 1.
        dimensions: Spatial axes, 2 or 3.
        kernel_size: Edge of all kernels, voxels; odd.

    Raises:
        UsageError: The stages do not fit together.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        features: Sequence[int],
        strides: Sequence[Sequence[int]],
        dimensions: int,
        kernel_size: int = 3,
    ) -> None:
        kernels = ((kernel_size,) * dimensions,) * len(features)
        steps, _ = check_topology(dimensions, features, strides, kernels)
        network = attentionunet.AttentionUnet(
            spatial_dims=dimensions,
            in_channels=in_channels,
            out_channels=num_classes,
            channels=tuple(features),
            strides=steps[1:],  # type: ignore[arg-type]  # it takes one number an axis as well
            kernel_size=kernel_size,
            up_kernel_size=kernel_size,
        )
        products = cumulative_strides(steps)
        super().__init__(network, level_strides=products[:1], divisor=products[-1], deep_supervision=False)

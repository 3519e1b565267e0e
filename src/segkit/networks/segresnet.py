"""SegResNetDS: a residual encoder with a light decoder and deep supervision, in MONAI's implementation.

Blocks of normalisation, ReLU and convolution, twice, beside an identity; strided convolutions down, transposed ones up;
skips are added. With the spacing of an anisotropic plan the first levels leave the coarse axis alone.

Reference:
    Myronenko, 3D MRI brain tumor segmentation using autoencoder regularization (2018), without the autoencoder.

Deviations: instance instead of batch normalisation by default (a batch of one trains, and evaluation computes what
training did); the width is the plan's first stage, 32 in MONAI: 87,164,684 weights in three dimensions with one
channel, three classes and four heads.
"""

from collections.abc import Sequence
from typing import Any, Literal

from monai.networks.nets import segresnet_ds

from segkit.networks.encoder_decoder import cumulative_strides
from segkit.networks.monai_adapter import MonaiNetwork, supervised_heads


class SegResNetDS(MonaiNetwork):
    """SegResNetDS in two or three dimensions.

    Args:
        in_channels: Channels of the image.
        num_classes: Channels of the logits, background included.
        features: The plan's channels by stage; the first is the width, which doubles at each level.
        dimensions: Spatial axes, 2 or 3.
        spacing: Of the plan, by axis; a coarse axis is halved only where the others have caught up with it.
        blocks_down: Blocks of each encoder level; as many levels.
        norm: Normalisation.
        deep_supervision: Whether training returns the logits of coarser levels too.
        supervised_levels: Levels with a head at most, from the finest; None: every decoder level.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        features: Sequence[int],
        dimensions: int,
        spacing: Sequence[float],
        blocks_down: Sequence[int] = (1, 2, 2, 4, 4),
        norm: Literal["instance", "batch"] = "instance",
        deep_supervision: bool = True,
        supervised_levels: int | None = None,
    ) -> None:
        heads = supervised_heads(
            len(blocks_down) - 1, deep_supervision=deep_supervision, supervised_levels=supervised_levels
        )
        network: Any = segresnet_ds.SegResNetDS(
            spatial_dims=dimensions,
            init_filters=features[0],
            in_channels=in_channels,
            out_channels=num_classes,
            norm=norm,
            blocks_down=tuple(blocks_down),
            dsdepth=heads,
            resolution=tuple(spacing),
        )
        # One for each level, of which the last strides nothing.
        scales = [tuple(int(step) for step in scale) for scale in network.anisotropic_scales[:-1]]
        levels = cumulative_strides([(1,) * dimensions, *scales])
        super().__init__(network, level_strides=levels[:heads], divisor=levels[-1], deep_supervision=deep_supervision)

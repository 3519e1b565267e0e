"""UNet++: a U-Net whose skips pass through nested decoders, in MONAI's implementation.

Node x_{i,j} on level i reads all x_{i,0..j-1} and the upsampled x_{i+1,j-1}. Heads sit on x_{0,1} to x_{0,4}, so all of
them have the image's resolution: deep supervision here means decoders of several depths, not several grids.

Reference:
    Zhou et al., UNet++: A Nested U-Net Architecture for Medical Image Segmentation (2018).

Deviations: the head of the deepest decoder comes first and is the one of evaluation, where MONAI returns it last and
all four always; without deep supervision the other three are not there. Channels are MONAI's (1, 1, 2, 4, 8 and 1 times
the width), with the plan's first stage as width, 32 in MONAI: 6,979,976 weights in three dimensions with one channel,
two classes and four heads.
"""

from collections.abc import Sequence

from monai.networks.nets import basic_unetplusplus
from monai.networks.nets.basic_unet import UpCat
from torch import Tensor, nn

from segkit.networks.monai_adapter import MonaiNetwork, halved_levels, supervised_heads

_WIDTHS = (1, 1, 2, 4, 8, 1)
_LEVELS = 5


class UNetPlusPlus(MonaiNetwork):
    """UNet++ in two or three dimensions.

    Args:
        in_channels: Channels of the image.
        num_classes: Channels of the logits, background included.
        features: The plan's channels by stage; the first is the width.
        dimensions: Spatial axes, 2 or 3.
        deep_supervision: Whether training returns the logits of the shallower decoders too.
        supervised_levels: Decoders with a head at most, from the deepest; None: all four.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        features: Sequence[int],
        dimensions: int,
        deep_supervision: bool = True,
        supervised_levels: int | None = None,
    ) -> None:
        heads = supervised_heads(_LEVELS - 1, deep_supervision=deep_supervision, supervised_levels=supervised_levels)
        network = basic_unetplusplus.BasicUNetPlusPlus(
            spatial_dims=dimensions,
            in_channels=in_channels,
            out_channels=num_classes,
            features=tuple(features[0] * width for width in _WIDTHS),
            deep_supervision=True,
        )
        for part in network.modules():
            if isinstance(part, UpCat):
                # Whole multiples of the strides come in: nothing is left to pad, and torch 2.13 does not compile it.
                part.is_pad = False
        for depth in range(1, _LEVELS - heads):
            setattr(network, f"final_conv_0_{depth}", nn.Identity())
        super().__init__(
            network,
            level_strides=((1,) * dimensions,) * heads,
            divisor=halved_levels(_LEVELS, dimensions)[-1],
            deep_supervision=deep_supervision,
        )

    def levels(self, image: Tensor, *, all_heads: bool) -> list[Tensor]:
        """Logits, of the deepest decoder first."""
        outputs: list[Tensor] = self.network(image)[::-1]
        return outputs[: self.num_heads if all_heads else 1]

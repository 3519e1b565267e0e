"""MedNeXt: a U-Net of ConvNeXt blocks, in MONAI's implementation and the paper's four sizes.

A block is a depthwise convolution, a normalisation of each channel, a 1-voxel convolution to `expansion` times the
channels, GELU and a 1-voxel convolution back, beside an identity. Skips are added. Five levels, each half the one
before, all with a head, the bottleneck too.

Reference:
    Roy et al., MedNeXt: Transformer-driven Scaling of ConvNets for Medical Image Segmentation (MICCAI 2023).

Deviations: MONAI's downsampling and upsampling blocks expand by another level's ratio than the authors', so that B, M
and L have fewer weights (3D, kernel 3, one channel, four classes: S 5,554,836 here and 5,554,837 with the authors'
dummy parameter; B 10,514,772 and 10,530,229; M 17,537,428 and 17,552,885; L 61,730,676 and 61,783,189). The width is
the plan's first stage, 32 in the paper. The modules are run by name, so that stages can be computed again in the
backward pass and evaluation computes one head.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from monai.networks.nets import mednext
from torch import Tensor

from segkit.networks.checkpointing import Recomputing
from segkit.networks.monai_adapter import MonaiNetwork, halved_levels, supervised_heads

Variant: TypeAlias = Literal["S", "B", "M", "L"]

_LEVELS = 5
_SIZES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # Expansion by encoder level and bottleneck, blocks by encoder level and bottleneck; the decoder mirrors both.
        "S": {"expansion": (2, 2, 2, 2, 2), "blocks": (2, 2, 2, 2, 2)},
        "B": {"expansion": (2, 3, 4, 4, 4), "blocks": (2, 2, 2, 2, 2)},
        "M": {"expansion": (2, 3, 4, 4, 4), "blocks": (3, 4, 4, 4, 4)},
        "L": {"expansion": (3, 4, 8, 8, 8), "blocks": (3, 4, 8, 8, 8)},
    }
)


class MedNeXt(MonaiNetwork, Recomputing):
    """MedNeXt in two or three dimensions.

    Args:
        in_channels: Channels of the image.
        num_classes: Channels of the logits, background included.
        features: The plan's channels by stage; the first is the width, which doubles at each level.
        dimensions: Spatial axes, 2 or 3.
        size: S, B, M or L of the paper.
        kernel_size: Edge of the depthwise kernels, voxels: 3 or 5 in the paper.
        deep_supervision: Whether training returns the logits of coarser levels too.
        supervised_levels: Levels with a head at most, from the finest; None: all five.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        features: Sequence[int],
        dimensions: int,
        size: Variant = "S",
        kernel_size: int = 3,
        deep_supervision: bool = True,
        supervised_levels: int | None = None,
    ) -> None:
        if size not in _SIZES:
            raise ValueError(f"size is {size!r}; there are {', '.join(_SIZES)}")
        expansion, blocks = _SIZES[size]["expansion"], _SIZES[size]["blocks"]
        network = mednext.MedNeXt(
            spatial_dims=dimensions,
            init_filters=features[0],
            in_channels=in_channels,
            out_channels=num_classes,
            encoder_expansion_ratio=expansion[:-1],
            decoder_expansion_ratio=expansion[-2::-1],
            bottleneck_expansion_ratio=expansion[-1],
            kernel_size=kernel_size,
            deep_supervision=deep_supervision,
            use_residual_connection=True,
            blocks_down=blocks[:-1],
            blocks_bottleneck=blocks[-1],
            blocks_up=blocks[-2::-1],
        )
        heads = supervised_heads(_LEVELS, deep_supervision=deep_supervision, supervised_levels=supervised_levels)
        if deep_supervision:
            # Coarsest first; the finest one is `out_0`.
            network.out_blocks = network.out_blocks[_LEVELS - heads :]
        levels = halved_levels(_LEVELS, dimensions)
        super().__init__(network, level_strides=levels[:heads], divisor=levels[-1], deep_supervision=deep_supervision)

    def levels(self, image: Tensor, *, all_heads: bool) -> list[Tensor]:
        """Logits, finest first."""
        network, skips, coarse = self.network, [], []
        features = network.stem(image)
        for stage, down in zip(network.enc_stages, network.down_blocks, strict=True):
            skips.append(self.run(stage, features))
            features = self.run(down, skips[-1])
        features = self.run(network.bottleneck, features)
        for level, (up, stage) in enumerate(zip(network.up_blocks, network.dec_stages, strict=True)):
            # `features` are of the level with this stride exponent; those of heads count from the coarsest.
            head = level - (_LEVELS - self.num_heads)
            if all_heads and head >= 0:
                coarse.append(network.out_blocks[head](features))
            features = self.run(stage, self.run(up, features) + skips.pop())
        return [network.out_0(features), *reversed(coarse)]

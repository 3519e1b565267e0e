"""Encoders: image to one feature map a stage, finest first."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from segkit.networks.blocks import StackedConvBlocks, StackedResidualBlocks
from segkit.networks.checkpointing import Recomputing
from segkit.networks.squeeze_excitation import SqueezeExcitation
from segkit.types import Size


class PlainEncoder(Recomputing):
    """Stages of stacked convolutions; the first convolution of a stage strides.

    Args:
        in_channels: Channels of the image.
        features: Channels of each stage.
        strides: Stride of each stage and axis; the first is 1.
        kernel_sizes: Kernel of each stage and axis.
        convolutions_per_stage: Convolutions of each stage.
        squeeze_excitation: Whether each stage ends in a weighting of its channels.
    """

    def __init__(
        self,
        in_channels: int,
        features: Sequence[int],
        *,
        strides: Sequence[Size],
        kernel_sizes: Sequence[Size],
        convolutions_per_stage: Sequence[int],
        squeeze_excitation: bool = False,
    ) -> None:
        super().__init__()
        stages = []
        for width, stride, kernel, count in zip(features, strides, kernel_sizes, convolutions_per_stage, strict=True):
            stage = StackedConvBlocks(in_channels, width, count=count, kernel_size=kernel, stride=stride)
            # Wrapped once more because nnU-Net's stages are: encoder.stages.0.0.convs.0
            stages.append(nn.Sequential(stage, *([SqueezeExcitation(width)] if squeeze_excitation else [])))
            in_channels = width
        self.stages = nn.ModuleList(stages)

    def forward(self, image: Float[Tensor, "B C *S"]) -> list[Tensor]:
        """Feature maps of all stages, finest first."""
        return _maps(self, self.stages, image)


class ResidualEncoder(Recomputing):
    """A stem of one convolution block, then stages of residual blocks; the first block of a stage strides.

    Args:
        in_channels: Channels of the image.
        features: Channels of each stage; the stem has those of the first.
        strides: Stride of each stage and axis; the first is 1.
        kernel_sizes: Kernel of each stage and axis.
        blocks_per_stage: Residual blocks of each stage.
        squeeze_excitation: Whether each block weights its channels before its shortcut is added.
    """

    def __init__(
        self,
        in_channels: int,
        features: Sequence[int],
        *,
        strides: Sequence[Size],
        kernel_sizes: Sequence[Size],
        blocks_per_stage: Sequence[int],
        squeeze_excitation: bool = False,
    ) -> None:
        super().__init__()
        self.stem = StackedConvBlocks(in_channels, features[0], count=1, kernel_size=kernel_sizes[0])
        stages = []
        before = features[0]
        for width, stride, kernel, count in zip(features, strides, kernel_sizes, blocks_per_stage, strict=True):
            stages.append(
                StackedResidualBlocks(
                    before,
                    width,
                    count=count,
                    kernel_size=kernel,
                    stride=stride,
                    squeeze_excitation=squeeze_excitation,
                )
            )
            before = width
        self.stages = nn.ModuleList(stages)

    def forward(self, image: Float[Tensor, "B C *S"]) -> list[Tensor]:
        """Feature maps of all stages, finest first."""
        return _maps(self, self.stages, self.run(self.stem, image))


def _maps(encoder: Recomputing, stages: nn.ModuleList, features: Tensor) -> list[Tensor]:
    maps = []
    for stage in stages:
        features = encoder.run(stage, features)
        maps.append(features)
    return maps

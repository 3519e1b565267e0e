"""UIU-Net: a U-Net whose stages are U-Nets, for small objects on large grids.

Each stage is a residual U-block that goes down to the grid of the network's bottleneck by the strides of the plan; the
two coarsest stages, and the decoder beside them, have dilations in place of strides. Interactive-cross attention joins
skip and decoder, except at the image's resolution, where they are concatenated. Every decoder stage and the bottleneck
has a side output of logits, and a 1-voxel convolution of all of them, upsampled, makes the network's logits:

    logits = b + sum over levels i of upsample(W_i side_i)

In training with deep supervision the list is [logits, side_1, side_2, ...], each on its own grid.

Channels: stage i returns f_i and has f_{i-1} / 2 within its U; decoder stage i returns f_{i-1}, those of the skip that
it meets next, and has half of them within (a quarter at the image's resolution). For the finest stage f_{i-1} is f_0.
With features (64, 128, 256, 512, 512, 512), strides of 2, three channels and one class this is the published 2D
network, 50,537,941 parameters.

Reference:
    Wu et al., UIU-Net: U-Net in U-Net for Infrared Small Object Detection, IEEE TIP 32 (2023).

Deviations from the authors' code (50,541,461 parameters):
    no normalisation of the attention's channel weights (3,520 parameters, the whole difference) and instance instead of
    batch normalisation elsewhere: a batch of one trains, on any grid;
    logits on each side output's own grid, where that code upsamples them and applies the sigmoid; the side output at
    the image's resolution is supervised through the sum only;
    W_i before the upsampling, not after it: the two commute, and the upsampled maps need not be kept side by side;
    the W_i begin as the mean of the side outputs (as in Xie and Tu, Holistically-Nested Edge Detection, ICCV 2015);
    pooling by the plan's strides of a padded grid (there: by 2, rounded up), any number of stages and classes, two or
    three dimensions;
    the bottleneck returns as many channels as the stage above it has, which is so there by its numbers.
"""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segkit.networks.blocks import convolution, initialise
from segkit.networks.checkpointing import Recomputing
from segkit.networks.encoder_decoder import EncoderDecoder, check_topology, count_heads, cumulative_strides
from segkit.networks.interactive_attention import InteractiveCrossAttention
from segkit.networks.rescaling import block_max, upsample_linear
from segkit.networks.residual_u_block import ResidualUBlock, dilated_u_block, pooled_u_block
from segkit.types import Size


class UIUNet(EncoderDecoder):
    """U-Net of U-Nets in two or three dimensions.

    Args:
        in_channels: Channels of the image.
        num_classes: Channels of the logits, background included.
        features: Channels of each stage, finest first.
        strides: Stride of each stage and axis; the first is 1.
        kernel_sizes: Kernel of each stage and axis; odd. A level of a nested U has that of the stage on its grid.
        dimensions: Spatial axes, 2 or 3.
        deep_supervision: Whether training returns the side outputs of coarser levels too.
        supervised_levels: Levels whose logits are returned, from the finest; None: all, the bottleneck included.

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
        kernel_sizes: Sequence[Sequence[int]],
        dimensions: int,
        deep_supervision: bool = True,
        supervised_levels: int | None = None,
    ) -> None:
        steps, kernels = check_topology(dimensions, features, strides, kernel_sizes)
        # One more than a decoder has: the bottleneck has a side output as well.
        heads = count_heads(len(features) + 1, deep_supervision=deep_supervision, supervised_levels=supervised_levels)
        encoder = UIUNetEncoder(in_channels, features, strides=steps, kernel_sizes=kernels)
        decoder = UIUNetDecoder(features, num_classes, strides=steps, kernel_sizes=kernels, num_heads=heads)
        super().__init__(encoder, decoder, strides=steps, num_heads=heads, deep_supervision=deep_supervision)
        self.apply(initialise)
        begin_as_mean(decoder.mix)


def nested_block(
    in_channels: int,
    mid_channels: int,
    out_channels: int,
    *,
    stage: int,
    strides: Sequence[Size],
    kernel_sizes: Sequence[Size],
) -> ResidualUBlock:
    """The residual U-block of a stage: down to the bottleneck's grid by its strides, or dilated in the last two stages.

    Args:
        in_channels: Channels of the input.
        mid_channels: Channels inside the U.
        out_channels: Channels of the output.
        stage: On whose grid the block works.
        strides: Of each stage of the network and axis.
        kernel_sizes: Of each stage of the network and axis.
    """
    if stage >= len(strides) - 2:
        return dilated_u_block(in_channels, mid_channels, out_channels, kernel_size=kernel_sizes[stage])
    return pooled_u_block(
        in_channels,
        mid_channels,
        out_channels,
        kernel_sizes=kernel_sizes[stage:],
        strides=((1,) * len(strides[0]), *strides[stage + 1 :]),
    )


@torch.no_grad()
def begin_as_mean(mix: nn.ModuleList) -> None:
    """Give 1-voxel convolutions, one a level, the weights whose sum over the levels is their mean, class by class."""
    for weight in mix.parameters():
        if weight.ndim > 1:
            weight.copy_(torch.eye(len(weight)).view_as(weight) / len(mix))


class UIUNetEncoder(Recomputing):
    """Stages of one residual U-block each, pooled by the strides between them.

    Args:
        in_channels: Channels of the image.
        features: Channels of each stage; the bottleneck has those of the stage above it.
        strides: Stride of each stage and axis.
        kernel_sizes: Kernel of each stage and axis.
    """

    def __init__(
        self, in_channels: int, features: Sequence[int], *, strides: Sequence[Size], kernel_sizes: Sequence[Size]
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.stages = nn.ModuleList()
        before = in_channels
        for stage, width in enumerate((*features[:-1], features[-2])):
            mid = max(1, features[max(stage - 1, 0)] // 2)
            self.stages.append(
                nested_block(before, mid, width, stage=stage, strides=strides, kernel_sizes=kernel_sizes)
            )
            before = width

    def forward(self, image: Float[Tensor, "B C *S"]) -> list[Tensor]:
        """Feature maps of all stages, finest first."""
        maps, features = [], image
        for stage, stride in zip(self.stages, self.strides, strict=True):
            features = self.run(stage, block_max(features, stride))
            maps.append(features)
        return maps


class UIUNetDecoder(Recomputing):
    """Upsample, join the skip, one residual U-block, level by level; side outputs and their sum.

    Args:
        features: Channels of each encoder stage, finest first.
        num_classes: Channels of the logits, background included.
        strides: Stride of each encoder stage and axis.
        kernel_sizes: Kernel of each encoder stage and axis.
        num_heads: Levels whose logits are returned, counted from the finest.
    """

    def __init__(
        self,
        features: Sequence[int],
        num_classes: int,
        *,
        strides: Sequence[Size],
        kernel_sizes: Sequence[Size],
        num_heads: int,
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.level_strides = cumulative_strides(strides)
        self.num_heads = num_heads
        self.stages, self.gates, self.sides, self.mix = (nn.ModuleList() for _ in range(4))
        one = (1,) * len(strides[0])
        for level, kernel in enumerate(kernel_sizes):
            width, out = features[level], features[max(level - 1, 0)]
            if level < len(features) - 1:
                # Half of that in the finest one, whose grid is the largest.
                mid = max(1, out // (2 if level > 0 else 4))
                self.stages.append(
                    nested_block(2 * width, mid, out, stage=level, strides=strides, kernel_sizes=kernel_sizes)
                )
                if level > 0:
                    self.gates.append(InteractiveCrossAttention(width, kernel_size=kernel))
            else:
                out = features[-2]
            self.sides.append(convolution(out, num_classes, kernel_size=kernel))
            self.mix.append(convolution(num_classes, num_classes, kernel_size=one, bias=level == 0))

    def forward(self, maps: list[Tensor], *, all_heads: bool) -> list[Tensor]:
        """Logits, finest first: of every head, or of the finest alone.

        Args:
            maps: The encoder's feature maps, finest first.
            all_heads: Whether the side outputs are returned as well.
        """
        *skips, features = maps
        sides = [self.sides[-1](features)]
        for level in reversed(range(len(skips))):
            features = self.run(partial(self._level, level), features, skips[level])
            sides.insert(0, self.sides[level](features))
        logits = self.mix[0](sides[0])
        for mix, side, stride in zip(self.mix[1:], sides[1:], self.level_strides[1:], strict=True):
            logits = logits + upsample_linear(mix(side), stride)
        return [logits, *sides[1 : self.num_heads]] if all_heads else [logits]

    def _level(self, level: int, features: Tensor, skip: Tensor) -> Tensor:
        """One level up: the coarser level's features, upsampled, and the skip of this one, through the block."""
        features = upsample_linear(features, self.strides[level + 1])
        joined = self.gates[level - 1](features, skip) if level > 0 else torch.cat((features, skip), 1)
        out: Tensor = self.stages[level](joined)
        return out

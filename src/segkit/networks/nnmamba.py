"""NNMamba: residual convolutions with a Mamba beside them that reads the whole feature map as a sequence.

    stage    one strided residual block, then blocks  LeakyReLU(conv2(conv1(x)) + x + mixer(x))
    mixer    a = ConvBlock1(x);   ConvBlock1(a + mean over readings r of r^-1(Mamba(r(a))))
    level    ConvBlocks(join(linear upsampling, skip * channel attention of the skip)), then a head

A reading turns the map into tokens: row by row, forward or backward, with the channels in their order or reversed. All
readings go through one Mamba in one batch.

Reference:
    Gong et al., nnMamba: 3D Biomedical Image Segmentation, Classification and Landmark Detection with State Space Model
    (2024): its segmentation network, of four strides of two, features 32 to 256, three blocks a stage.

Deviations:
- A plain 1-voxel head makes the logits. The published network ends in normalisation and ReLU: none of its logits is
  negative, and two thirds of them are exactly 0 at the start.
- Each block has a mixer of its own. The published blocks of a stage share one, its statistics included: `share=true`.
- Instance instead of batch normalisation, LeakyReLU instead of ReLU, as everywhere here: a batch of one trains.
- Strides, kernels and features are the plan's, by axis, in 2D and 3D; any input size; heads for deep supervision.
- With `stem=full` the finest stage keeps the resolution of the image and has a skip; the published stem strides. A plan
  of two stages has no stage behind such a stem, so there the stem is full.
- `token_order=each_axis` reads the rows along every axis; as published, along the last one only.
- Upsampling keeps the centres of voxels, not the corners.

Parameters with `share`, features (6, 32, 64, 128, 256), 6 classes and one head: the published 15,944,958, and 42 of the
head.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from segkit.errors import UsageError
from segkit.networks.blocks import NEGATIVE_SLOPE, ConvBlock, StackedConvBlocks, convolution, initialise
from segkit.networks.checkpointing import Recomputing
from segkit.networks.encoder_decoder import EncoderDecoder, check_topology, count_heads
from segkit.networks.mamba import Mamba
from segkit.networks.rescaling import upsample_linear
from segkit.types import Size

Direction: TypeAlias = Literal["forward", "channels", "backward", "channels_backward"]
TokenOrder: TypeAlias = Literal["last_axis", "each_axis"]
Stem: TypeAlias = Literal["strided", "full"]

FLIPPED: dict[str, tuple[int, ...]] = {"forward": (), "channels": (2,), "backward": (1,), "channels_backward": (1, 2)}
"""Axes of (B, tokens, C) that a direction reverses."""
REDUCTION = 16
"""Channels to one hidden number of the channel attention."""


class SequenceMixer(nn.Module):
    """A Mamba over all voxels, read in several ways with the same weights (MICCSS).

    Args:
        channels: Channels in and out.
        dimensions: Spatial axes.
        directions: How each sequence of tokens is read; the mean of all is taken.
        token_order: Whether rows run along the last axis, or once along each axis.
        d_state: Numbers of state of each inner channel.
    """

    def __init__(
        self, channels: int, *, dimensions: int, directions: Sequence[Direction], token_order: TokenOrder, d_state: int
    ) -> None:
        super().__init__()
        one = (1,) * dimensions
        self.reduce = ConvBlock(channels, channels, kernel_size=one, bias=False)
        self.mamba = Mamba(channels, d_state=d_state)
        self.project = ConvBlock(channels, channels, kernel_size=one, bias=False)
        self.flips = tuple(FLIPPED[direction] for direction in directions)
        self.row_axes = (dimensions - 1,) if token_order == "last_axis" else tuple(range(dimensions))

    def forward(self, features: Float[Tensor, "B C *S"]) -> Float[Tensor, "B C *S"]:
        """What the other voxels say about each voxel."""
        reduced = self.reduce(features)
        out: Tensor = self.project(reduced + self.mixed(reduced))
        return out

    def mixed(self, features: Float[Tensor, "B C *S"]) -> Float[Tensor, "B C *S"]:
        """The mean of the Mamba over all readings."""
        rows = {axis: features.movedim(2 + axis, -1).movedim(1, -1) for axis in self.row_axes}
        readings = [(axis, flip) for axis in self.row_axes for flip in self.flips]
        read = self.mamba(torch.cat([rows[axis].flatten(1, -2).flip(flip) for axis, flip in readings]))
        maps = [
            tokens.flip(flip).reshape(rows[axis].shape).movedim(-1, 1).movedim(-1, 2 + axis)
            for tokens, (axis, flip) in zip(read.chunk(len(readings)), readings, strict=True)
        ]
        mean: Tensor = sum(maps[1:], start=maps[0]) / len(maps)
        return mean


class Block(nn.Module):
    """Two convolutions beside a shortcut and, in the blocks that keep the grid, beside a mixer."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel_size: Sequence[int], stride: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.conv1 = ConvBlock(in_channels, out_channels, kernel_size=kernel_size, stride=stride, bias=False)
        self.conv2 = ConvBlock(out_channels, out_channels, kernel_size=kernel_size, bias=False, activation=False)
        one = (1,) * len(kernel_size)
        self.shortcut = (
            nn.Identity()
            if stride is None
            else ConvBlock(in_channels, out_channels, kernel_size=one, stride=stride, bias=False, activation=False)
        )

    def forward(self, features: Float[Tensor, "B C *S"], mixer: nn.Module | None = None) -> Float[Tensor, "B D *T"]:
        """(B, C, *S) to (B, D, *S / stride)."""
        out = self.conv2(self.conv1(features)) + self.shortcut(features)
        if mixer is not None:
            out = out + mixer(features)
        return F.leaky_relu(out, NEGATIVE_SLOPE)


class MambaStage(nn.Module):
    """A strided block, then blocks with a mixer: one a block, or one for all of them."""

    def __init__(self, blocks: Sequence[Block], mixers: Sequence[SequenceMixer]) -> None:
        super().__init__()
        self.blocks, self.mixers = nn.ModuleList(blocks), nn.ModuleList(mixers)

    def forward(self, features: Float[Tensor, "B C *S"]) -> Float[Tensor, "B D *T"]:
        """(B, C, *S) to (B, D, *S / stride)."""
        features = self.blocks[0](features)
        for index, block in enumerate(self.blocks[1:]):
            features = block(features, self.mixers[index % len(self.mixers)])
        return features


class NNMambaEncoder(Recomputing):
    """A stem of two convolutions, then stages with Mamba; every one of them gives a feature map."""

    def __init__(self, stem: nn.Module, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stem, self.stages = stem, nn.ModuleList(stages)

    def forward(self, image: Float[Tensor, "B C *S"]) -> list[Tensor]:
        """Feature maps, finest first; the finest is the stem's."""
        maps = [self.run(self.stem, image)]
        for stage in self.stages:
            maps.append(self.run(stage, maps[-1]))
        return maps


class ChannelAttention(nn.Module):
    """x * sigmoid(W2 LeakyReLU(W1 mean of x)): each channel weighted by what the whole map holds."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // REDUCTION)
        self.squeeze, self.excite = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, features: Float[Tensor, "B C *S"]) -> Float[Tensor, "B C *S"]:
        """The features, weighted."""
        mean = features.flatten(2).mean(2)
        weight: Tensor = torch.sigmoid(self.excite(F.leaky_relu(self.squeeze(mean), NEGATIVE_SLOPE)))
        return features * weight.view(*weight.shape, *(1,) * (features.ndim - 2))


class NNMambaDecoder(Recomputing):
    """Linear upsampling, the weighted skip beside it, two convolutions; a 1-voxel convolution makes logits of a level.

    Levels count from the deepest. With a strided stem the finest has no skip.

    Args:
        features: Channels of each stage, finest first.
        num_classes: Channels of the logits, background included.
        strides: Stride of each stage and axis.
        kernel_sizes: Kernel of each stage and axis.
        num_heads: Levels that get a head, counted from the finest.
        finest_skip: Whether the encoder has a map at the image's resolution.
    """

    def __init__(
        self,
        features: Sequence[int],
        num_classes: int,
        *,
        strides: Sequence[Size],
        kernel_sizes: Sequence[Size],
        num_heads: int,
        finest_skip: bool,
    ) -> None:
        super().__init__()
        self.factors = tuple(reversed(strides[1:]))
        self.attentions, self.stages = nn.ModuleList(), nn.ModuleList()
        self.heads = nn.ModuleDict()
        one = (1,) * len(strides[0])
        finest = len(features) - 2
        for stage, level in enumerate(range(finest, -1, -1)):
            skip = features[level] if level > 0 or finest_skip else 0
            if skip:
                self.attentions.append(ChannelAttention(skip))
            joined = features[level + 1] + skip
            self.stages.append(StackedConvBlocks(joined, features[level], count=2, kernel_size=kernel_sizes[level]))
            if level < num_heads:
                self.heads[str(stage)] = convolution(features[level], num_classes, kernel_size=one)

    def forward(self, maps: list[Tensor], *, all_heads: bool) -> list[Tensor]:
        """Logits, finest first: of every head, or of the finest alone.

        Args:
            maps: The encoder's feature maps, finest first.
            all_heads: Whether the coarser heads are computed as well.
        """
        *skips, features = maps
        outputs: list[Tensor] = []
        for stage in range(len(self.stages)):
            beside = [skips.pop()] if skips else []
            features = self.run(partial(self._level, stage), features, *beside)
            if str(stage) in self.heads and (all_heads or stage == len(self.stages) - 1):
                outputs.insert(0, self.heads[str(stage)](features))
        return outputs

    def _level(self, stage: int, features: Tensor, skip: Tensor | None = None) -> Tensor:
        joined = upsample_linear(features, self.factors[stage])
        if skip is not None:
            joined = torch.cat((joined, self.attentions[stage](skip)), 1)
        out: Tensor = self.stages[stage](joined)
        return out


class NNMamba(EncoderDecoder):
    """NNMamba in two or three dimensions.

    Args:
        in_channels: Channels of the image.
        num_classes: Channels of the logits, background included.
        features: Channels of each stage, finest first.
        strides: Stride of each stage and axis; the first is 1.
        kernel_sizes: Kernel of each stage and axis; odd.
        dimensions: Spatial axes, 2 or 3.
        blocks: Blocks of each stage with Mamba; the first strides, the others have the mixers.
        directions: How tokens are read: forward, backward, and both with the channels reversed.
        token_order: Whether rows of tokens run along the last axis, or once along each axis.
        share: Whether the blocks of a stage share one mixer.
        stem: Whether the stem strides by the second stage's stride, or keeps the resolution of the image.
        d_state: Numbers of state of each inner channel of a Mamba.
        deep_supervision: Whether training returns the logits of coarser levels too.
        supervised_levels: Levels with a head, from the finest; None: every decoder level.

    Raises:
        UsageError: The stages do not fit together, a stage has no block for a mixer, or no direction is named.
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
        blocks: int = 3,
        directions: Sequence[Direction] = get_args(Direction),
        token_order: TokenOrder = "last_axis",
        share: bool = False,
        stem: Stem = "strided",
        d_state: int = 16,
        deep_supervision: bool = True,
        supervised_levels: int | None = None,
    ) -> None:
        steps, kernels = check_topology(dimensions, features, strides, kernel_sizes)
        _check_settings(blocks, directions)
        heads = count_heads(len(features), deep_supervision=deep_supervision, supervised_levels=supervised_levels)
        finest = 1 if stem == "strided" and len(features) > 2 else 0

        def mixer(channels: int) -> SequenceMixer:
            return SequenceMixer(
                channels, dimensions=dimensions, directions=directions, token_order=token_order, d_state=d_state
            )

        def stage(index: int) -> MambaStage:
            width, kernel = features[index], kernels[index]
            first = Block(features[index - 1], width, kernel_size=kernel, stride=steps[index])
            rest = [Block(width, width, kernel_size=kernel) for _ in range(blocks - 1)]
            return MambaStage([first, *rest], [mixer(width) for _ in range(1 if share else blocks - 1)])

        encoder = NNMambaEncoder(
            StackedConvBlocks(
                in_channels, features[finest], count=2, kernel_size=kernels[finest], stride=steps[finest]
            ),
            [stage(index) for index in range(finest + 1, len(features))],
        )
        decoder = NNMambaDecoder(
            features,
            num_classes,
            strides=steps,
            kernel_sizes=kernels,
            num_heads=heads,
            finest_skip=finest == 0,
        )
        super().__init__(encoder, decoder, strides=steps, num_heads=heads, deep_supervision=deep_supervision)
        self.apply(initialise)


def _check_settings(blocks: int, directions: Sequence[str]) -> None:
    if blocks < 2:
        raise UsageError(
            "NNMamba without a Mamba",
            where="network.blocks",
            why=f"{blocks} block a stage: the first one strides, and only the others have a Mamba beside them",
            mend="network.blocks=3",
        )
    if not directions or len(set(directions)) < len(directions):
        raise UsageError(
            "no directions to read tokens in, or one of them twice",
            where="network.directions",
            why=f"{list(directions)}; each of {', '.join(FLIPPED)} may stand once",
            mend="network.directions=[forward,backward]",
        )

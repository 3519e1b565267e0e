"""KiU-Net: a U-Net beside an over-complete branch whose grid grows as the U-Net's shrinks, for small structures.

    U_i  = ReLU(norm(max-pool(conv(U_{i-1}))))         on the image's grid / stride of level i
    K_i  = ReLU(norm(upsample(conv(K_{i-1}))))         on the image's grid * scale of level i
    U_i <- U_i + resize(ReLU(norm(conv(K_i)))),  K_i <- K_i + resize(ReLU(norm(conv(U_i))))        cross-residual fusion

down to the last level and, with the two rescalings exchanged, back up. Skips of a level are added to what comes from
below after its fusion. Logits: a 1-voxel convolution of U_0 + K_0.

Stages of the plan: stage 0 is the image's grid, its features those of the last decoder block; stage i is level i. With
features (8, 16, 32, 64), strides of 2 and `overcomplete_limit=8` this is the published 2D network of one channel and
two classes, 216,546 parameters.

Reference:
    Valanarasu et al., KiU-Net: Towards Accurate Segmentation of Biomedical Images Using Over-complete Representations
    (MICCAI 2020); KiU-Net: Overcomplete Convolutional Architectures for Biomedical Image and Volumetric Segmentation,
    IEEE TMI 41 (2022).

Deviations from the authors' code (290,658 parameters):
    no fusion at full resolution, where that code builds one of 64 channels and does not use it (2 x 37,056 parameters,
    the whole difference);
    logits, where that code ends in a ReLU; any number of classes, any input size, two or three dimensions;
    the Ki branch's grid stops growing at `overcomplete_limit`, which was 2^3 an axis of whatever image;
    instance instead of batch normalisation, as everywhere here: a batch of one trains;
    with deep supervision, heads on the U branch's coarser levels.
"""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from segkit.errors import UsageError
from segkit.networks.blocks import convolution, initialise, instance_norm
from segkit.networks.checkpointing import Recomputing
from segkit.networks.encoder_decoder import EncoderDecoder, check_topology, count_heads, cumulative_strides
from segkit.networks.rescaling import block_max, downsample_linear, upsample_linear
from segkit.types import Size

LEAST_FEATURES = 4
"""Channels of a stage, however small `width` makes it."""


class KiUNet(EncoderDecoder):
    """U-Net and over-complete branch in two or three dimensions.

    Memory and time of the Ki branch grow with its voxels: at a limit of 2 they are 4 (2D) or 8 (3D) times those at 1,
    at 8 they are 64 or 512 times.

    Args:
        in_channels: Channels of the image.
        num_classes: Channels of the logits, background included.
        features: Channels of each stage of the plan, finest first.
        strides: Stride of each stage and axis; the first is 1.
        kernel_sizes: Kernel of each stage and axis; odd. Both branches of a level have the same.
        dimensions: Spatial axes, 2 or 3.
        width: Share of `features` that is built, at least 4 channels a stage.
        levels: Levels below the image's grid, at most; further stages of the plan are left out. None: all.
        overcomplete_limit: Most voxels of the Ki branch along one of the image's, 1 to 8, for all axes or by axis. The
            branch grows by the stride of each level as long as it stays within.
        deep_supervision: Whether training returns the logits of coarser levels too.
        supervised_levels: Levels with a head, from the finest, at most; None: all but the last.

    Raises:
        UsageError: The stages do not fit together, or a limit lies outside 1 to 8.
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
        width: float = 1.0,
        levels: int | None = None,
        overcomplete_limit: int | Sequence[int] = 2,
        deep_supervision: bool = True,
        supervised_levels: int | None = None,
    ) -> None:
        steps, kernels = check_topology(dimensions, features, strides, kernel_sizes)
        stages = min(len(features), (levels or len(features)) + 1)
        steps, kernels = steps[:stages], kernels[:stages]
        widths = tuple(max(LEAST_FEATURES, round(width * each)) for each in features[:stages])
        scales = overcomplete_scales(steps, check_limit(overcomplete_limit, dimensions))
        if supervised_levels is not None:
            supervised_levels = min(supervised_levels, stages - 1)
        heads = count_heads(stages, deep_supervision=deep_supervision, supervised_levels=supervised_levels)
        encoder = KiUNetEncoder(in_channels, widths, strides=steps, kernel_sizes=kernels, scales=scales)
        decoder = KiUNetDecoder(
            widths, num_classes, strides=steps, kernel_sizes=kernels, scales=scales, num_heads=heads
        )
        super().__init__(encoder, decoder, strides=steps, num_heads=heads, deep_supervision=deep_supervision)
        self.apply(initialise)


def check_limit(limit: int | Sequence[int], dimensions: int) -> Size:
    """The largest scale of the Ki branch's grid by axis.

    Raises:
        UsageError: Another number of axes, or a limit outside 1 to 8.
    """
    limits = (limit,) * dimensions if isinstance(limit, int) else tuple(limit)
    if len(limits) != dimensions or not all(1 <= each <= 8 for each in limits):
        raise UsageError(
            "no such limit of the over-complete grid",
            where="network.overcomplete_limit",
            why=f"{limit}, where an image of {dimensions} axes takes one number or {dimensions}, each from 1 to 8",
            mend="network.overcomplete_limit=2",
        )
    return limits


def overcomplete_scales(strides: Sequence[Size], limit: Size) -> tuple[Size, ...]:
    """Voxels of the Ki branch along one of the image's, by level and axis.

    The running product of the strides, where a stride that would exceed the limit is left out.
    """
    scales = [(1,) * len(limit)]
    for stride in strides[1:]:
        grown = (
            scale * step if scale * step <= most else scale
            for scale, step, most in zip(scales[-1], stride, limit, strict=True)
        )
        scales.append(tuple(grown))
    return tuple(scales)


class RescalingBlock(nn.Module):
    """ReLU(norm(R(conv(x)))), where R makes the grid finer (linearly) or coarser (max-pooling) by whole factors.

    Args:
        in_channels: Channels of x.
        out_channels: Channels of the result.
        kernel_size: Of the convolution, by axis.
        factor: Between the two grids, by axis.
        towards: Whether the grid of the result is finer or coarser than that of x.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: Size,
        factor: Size,
        towards: Literal["finer", "coarser"],
    ) -> None:
        super().__init__()
        self.conv = convolution(in_channels, out_channels, kernel_size=kernel_size)
        self.norm = instance_norm(out_channels, len(kernel_size))
        self.nonlin = nn.ReLU(inplace=True)
        self.factor = factor
        self.towards = towards

    def forward(self, features: Float[Tensor, "B C *S"]) -> Float[Tensor, "B D *T"]:
        """(B, C, *S) to (B, D, *S * factor) or (B, D, *S / factor)."""
        rescale = upsample_linear if self.towards == "finer" else block_max
        out: Tensor = self.nonlin(self.norm(rescale(self.conv(features), self.factor)))
        return out

    def extra_repr(self) -> str:
        """Shown by `print(network)`."""
        return f"towards={self.towards}, factor={self.factor}"


class CrossResidualFusion(nn.Module):
    """Each branch adds what a convolution block reads in the other, on its own grid; both read before either adds.

    Args:
        channels: Of both branches.
        kernel_size: By axis.
        ratio: Voxels of the Ki branch to one of the U branch, by axis.
    """

    def __init__(self, channels: int, *, kernel_size: Size, ratio: Size) -> None:
        super().__init__()
        same = (1,) * len(ratio)
        self.to_u = RescalingBlock(channels, channels, kernel_size=kernel_size, factor=same, towards="finer")
        self.to_ki = RescalingBlock(channels, channels, kernel_size=kernel_size, factor=same, towards="finer")
        self.ratio = ratio

    def forward(
        self, u: Float[Tensor, "B C *S"], ki: Float[Tensor, "B C *T"]
    ) -> tuple[Float[Tensor, "B C *S"], Float[Tensor, "B C *T"]]:
        """U and Ki features, each on its grid."""
        return u + downsample_linear(self.to_u(ki), self.ratio), ki + upsample_linear(self.to_ki(u), self.ratio)


class TwinStage(nn.Module):
    """One level of both branches: a block each, and the fusion where there is one."""

    def __init__(self, u: RescalingBlock, ki: RescalingBlock, fusion: CrossResidualFusion | None) -> None:
        super().__init__()
        self.u = u
        self.ki = ki
        self.fusion = fusion

    def forward(self, u: Tensor, ki: Tensor) -> tuple[Tensor, Tensor]:
        """U and Ki features of the level before to those of this one."""
        u, ki = self.u(u), self.ki(ki)
        if self.fusion is None:
            return u, ki
        out: tuple[Tensor, Tensor] = self.fusion(u, ki)
        return out


class KiUNetEncoder(Recomputing):
    """Level by level the U branch's grid shrinks and the Ki branch's grows.

    Args:
        in_channels: Channels of the image, which both branches read.
        features: Channels of each stage; those of the first are the decoder's alone.
        strides: Stride of each stage and axis.
        kernel_sizes: Kernel of each stage and axis.
        scales: Voxels of the Ki branch along one of the image's, by stage and axis.
    """

    def __init__(
        self,
        in_channels: int,
        features: Sequence[int],
        *,
        strides: Sequence[Size],
        kernel_sizes: Sequence[Size],
        scales: Sequence[Size],
    ) -> None:
        super().__init__()
        level_strides = cumulative_strides(strides)
        self.stages = nn.ModuleList()
        for level in range(1, len(features)):
            before = in_channels if level == 1 else features[level - 1]
            kernel, width = kernel_sizes[level - 1], features[level]
            growth = _divide(scales[level], scales[level - 1])
            u = RescalingBlock(before, width, kernel_size=kernel, factor=strides[level], towards="coarser")
            ki = RescalingBlock(before, width, kernel_size=kernel, factor=growth, towards="finer")
            ratio = _multiply(scales[level], level_strides[level])
            fusion = CrossResidualFusion(width, kernel_size=kernel_sizes[level], ratio=ratio)
            self.stages.append(TwinStage(u, ki, fusion))

    def forward(self, image: Float[Tensor, "B C *S"]) -> list[tuple[Tensor, Tensor]]:
        """U and Ki features of each level, finest first; the image's own grid has none."""
        maps, u, ki = [], image, image
        for stage in self.stages:
            u, ki = self.run(stage, u, ki)
            maps.append((u, ki))
        return maps


class KiUNetDecoder(Recomputing):
    """Back to the image's grid, from both sides; a 1-voxel convolution makes logits of a level.

    Args:
        features: Channels of each stage, finest first.
        num_classes: Channels of the logits, background included.
        strides: Stride of each stage and axis.
        kernel_sizes: Kernel of each stage and axis.
        scales: Voxels of the Ki branch along one of the image's, by stage and axis.
        num_heads: Levels that get a head, counted from the finest, where it reads both branches; the others read U.
    """

    def __init__(
        self,
        features: Sequence[int],
        num_classes: int,
        *,
        strides: Sequence[Size],
        kernel_sizes: Sequence[Size],
        scales: Sequence[Size],
        num_heads: int,
    ) -> None:
        super().__init__()
        level_strides = cumulative_strides(strides)
        one = (1,) * len(strides[0])
        self.stages, self.seg_layers = nn.ModuleList(), nn.ModuleDict()
        for stage, level in enumerate(reversed(range(len(features) - 1))):
            before, width, kernel = features[level + 1], features[level], kernel_sizes[level + 1]
            growth = _divide(scales[level + 1], scales[level])
            u = RescalingBlock(before, width, kernel_size=kernel, factor=strides[level + 1], towards="finer")
            ki = RescalingBlock(before, width, kernel_size=kernel, factor=growth, towards="coarser")
            ratio = _multiply(scales[level], level_strides[level])
            fusion = CrossResidualFusion(width, kernel_size=kernel_sizes[level], ratio=ratio) if level > 0 else None
            self.stages.append(TwinStage(u, ki, fusion))
            if level < num_heads:
                # Keyed by stage: the same names whether or not the coarse heads are there.
                self.seg_layers[str(stage)] = convolution(width, num_classes, kernel_size=one)

    def forward(self, maps: list[tuple[Tensor, Tensor]], *, all_heads: bool) -> list[Tensor]:
        """Logits, finest first: of every head, or of the finest alone.

        Args:
            maps: The encoder's features of both branches, finest first.
            all_heads: Whether the coarser heads are computed as well.
        """
        *skips, (u, ki) = maps
        outputs: list[Tensor] = []
        for stage, twin in enumerate(self.stages):
            u, ki = self.run(twin, u, ki)
            if skips:
                skip_u, skip_ki = skips.pop()
                u, ki = u + skip_u, ki + skip_ki
                if all_heads and str(stage) in self.seg_layers:
                    outputs.insert(0, self.seg_layers[str(stage)](u))
            else:
                outputs.insert(0, self.seg_layers[str(stage)](u + ki))
        return outputs


def _multiply(one: Size, other: Size) -> Size:
    return tuple(a * b for a, b in zip(one, other, strict=True))


def _divide(larger: Size, smaller: Size) -> Size:
    return tuple(a // b for a, b in zip(larger, smaller, strict=True))

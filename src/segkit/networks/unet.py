"""The U-Net of nnU-Net: plain convolutions, instance normalisation, deep supervision.

Attention gates make it Attention U-Net; squeeze-and-excitation is another switch. Both are off by default, and then
nothing of them is built.

Topology and parameter names are nnU-Net's PlainConvUNet (features, strides and kernels come from the plan).

Reference:
    Ronneberger et al., U-Net (2015); Çiçek et al., 3D U-Net (2016); Isensee et al., nnU-Net, Nature Methods 18 (2021);
    Lee et al., Deeply-Supervised Nets (2015), for the heads on coarser levels.

Deviations: takes any input size (nnU-Net needs divisible ones); builds only the heads that are supervised.
"""

from collections.abc import Sequence

from segkit.networks.attention_gate import Gate
from segkit.networks.blocks import initialise
from segkit.networks.decoder import UNetDecoder
from segkit.networks.encoder import PlainEncoder
from segkit.networks.encoder_decoder import EncoderDecoder, check_topology, count_heads, per_stage


class UNet(EncoderDecoder):
    """Plain U-Net in two or three dimensions.

    Args:
        in_channels: Channels of the image.
        num_classes: Channels of the logits, background included.
        features: Channels of each stage, finest first.
        strides: Stride of each stage and axis; the first is 1.
        kernel_sizes: Kernel of each stage and axis; odd.
        dimensions: Spatial axes, 2 or 3.
        convolutions_per_stage: Convolutions of each stage, in encoder and decoder.
        deep_supervision: Whether training returns the logits of coarser levels too.
        supervised_levels: Levels with a head, from the finest; None: every decoder level.
        attention: Whether attention gates weight the skips (Attention U-Net).
        gate: Which gate: on the grid of the coarser level, or at the skip's own resolution.
        squeeze_excitation: Whether channels are weighted, at the end of each stage.

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
        convolutions_per_stage: int = 2,
        deep_supervision: bool = True,
        supervised_levels: int | None = None,
        attention: bool = False,
        gate: Gate = "grid",
        squeeze_excitation: bool = False,
    ) -> None:
        steps, kernels = check_topology(dimensions, features, strides, kernel_sizes)
        stages = len(features)
        heads = count_heads(stages, deep_supervision=deep_supervision, supervised_levels=supervised_levels)
        counts = per_stage(convolutions_per_stage, stages, name="convolutions_per_stage")
        encoder = PlainEncoder(
            in_channels,
            features,
            strides=steps,
            kernel_sizes=kernels,
            convolutions_per_stage=counts,
            squeeze_excitation=squeeze_excitation,
        )
        decoder = UNetDecoder(
            features,
            num_classes,
            strides=steps,
            kernel_sizes=kernels,
            convolutions_per_stage=counts[1:],
            num_heads=heads,
            gate=gate if attention else None,
            squeeze_excitation=squeeze_excitation,
        )
        super().__init__(encoder, decoder, strides=steps, num_heads=heads, deep_supervision=deep_supervision)
        self.apply(initialise)

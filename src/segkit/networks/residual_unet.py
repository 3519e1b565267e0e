"""The residual-encoder U-Net of nnU-Net: residual blocks on the way down, few convolutions on the way up.

Topology and parameter names are nnU-Net's ResidualEncoderUNet (presets M, L and XL differ by the plan).

Reference:
    Isensee et al., nnU-Net Revisited (MICCAI 2024); He et al., Identity Mappings in Deep Residual Networks (2016).

Deviations: takes any input size (nnU-Net needs divisible ones); builds only the heads that are supervised.
"""

from collections.abc import Sequence

from segkit.networks.attention_gate import Gate
from segkit.networks.blocks import initialise
from segkit.networks.decoder import UNetDecoder
from segkit.networks.encoder import ResidualEncoder
from segkit.networks.encoder_decoder import EncoderDecoder, check_topology, count_heads, per_stage


class ResidualUNet(EncoderDecoder):
    """U-Net with a residual encoder in two or three dimensions.

    Args:
        in_channels: Channels of the image.
        num_classes: Channels of the logits, background included.
        features: Channels of each stage, finest first.
        strides: Stride of each stage and axis; the first is 1.
        kernel_sizes: Kernel of each stage and axis; odd.
        dimensions: Spatial axes, 2 or 3.
        blocks_per_stage: Residual blocks of each encoder stage.
        decoder_convolutions: Convolutions of each decoder stage.
        deep_supervision: Whether training returns the logits of coarser levels too.
        supervised_levels: Levels with a head, from the finest; None: every decoder level.
        attention: Whether attention gates weight the skips (Attention U-Net).
        gate: Which gate: on the grid of the coarser level, or at the skip's own resolution.
        squeeze_excitation: Whether channels are weighted, in each residual block and each stage of the decoder.

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
        blocks_per_stage: int | Sequence[int],
        decoder_convolutions: int = 1,
        deep_supervision: bool = True,
        supervised_levels: int | None = None,
        attention: bool = False,
        gate: Gate = "grid",
        squeeze_excitation: bool = False,
    ) -> None:
        steps, kernels = check_topology(dimensions, features, strides, kernel_sizes)
        stages = len(features)
        heads = count_heads(stages, deep_supervision=deep_supervision, supervised_levels=supervised_levels)
        encoder = ResidualEncoder(
            in_channels,
            features,
            strides=steps,
            kernel_sizes=kernels,
            blocks_per_stage=per_stage(blocks_per_stage, stages, name="blocks_per_stage"),
            squeeze_excitation=squeeze_excitation,
        )
        decoder = UNetDecoder(
            features,
            num_classes,
            strides=steps,
            kernel_sizes=kernels,
            convolutions_per_stage=per_stage(decoder_convolutions, stages - 1, name="decoder_convolutions"),
            num_heads=heads,
            gate=gate if attention else None,
            squeeze_excitation=squeeze_excitation,
        )
        super().__init__(encoder, decoder, strides=steps, num_heads=heads, deep_supervision=deep_supervision)
        self.apply(initialise)

"""MONAI's DynUNet: nnU-Net's U-Net in MONAI's words, plain or with residual blocks in encoder and decoder.

Reference:
    Isensee et al., nnU-Net, Nature Methods 18 (2021); Futrega et al., Optimized U-Net for Brain Tumor Segmentation
    (2021), for the residual variant.

Deviations from MONAI's: heads are returned at their own resolution, where MONAI upsamples and stacks them; the modules
are run by name, and `skip_layers`, which registers all of them a second time and keeps the heads' last outputs, is not
there. Names and numbers of the weights are MONAI's: 31,191,759 in three dimensions with six stages, five heads and
three classes, 4,640 fewer than `network=unet`, whose convolutions before a normalisation (3,840) and transposed ones
(800) have biases.
"""

from collections.abc import Sequence

from monai.networks.nets import dynunet
from torch import Tensor, nn

from segkit.errors import UsageError
from segkit.networks.checkpointing import Recomputing
from segkit.networks.encoder_decoder import check_topology, count_heads, cumulative_strides
from segkit.networks.monai_adapter import MonaiNetwork

_FEWEST_STAGES = 3


class DynUNet(MonaiNetwork, Recomputing):
    """MONAI's DynUNet, with the plan's topology.

    Args:
        in_channels: Channels of the image.
        num_classes: Channels of the logits, background included.
        features: Channels of each stage, finest first.
        strides: Stride of each stage and axis; the first is 1.
        kernel_sizes: Kernel of each stage and axis; odd.
        dimensions: Spatial axes, 2 or 3.
        residual: Whether the blocks of the encoder are residual.
        deep_supervision: Whether training returns the logits of coarser levels too.
        supervised_levels: Levels with a head, from the finest; None: every decoder level.

    Raises:
        UsageError: The stages do not fit together, or are fewer than three.
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
        residual: bool = False,
        deep_supervision: bool = True,
        supervised_levels: int | None = None,
    ) -> None:
        steps, kernels = check_topology(dimensions, features, strides, kernel_sizes)
        if len(features) < _FEWEST_STAGES:
            raise UsageError(
                "DynUNet needs more stages",
                where="plan.features",
                why=f"it has at least {_FEWEST_STAGES}, and {len(features)} are given",
                mend="network=unet, or another stage in plan.features, plan.strides and plan.kernel_sizes",
            )
        heads = count_heads(len(features), deep_supervision=deep_supervision, supervised_levels=supervised_levels)
        network = dynunet.DynUNet(
            dimensions,
            in_channels,
            num_classes,
            kernel_size=kernels,
            strides=steps,
            upsample_kernel_size=steps[1:],
            filters=tuple(features),
            res_block=residual,
            deep_supervision=heads > 1,
            deep_supr_num=max(1, heads - 1),
        )
        del network.skip_layers
        network.heads = []
        products = cumulative_strides(steps)
        super().__init__(
            network, level_strides=products[:heads], divisor=products[-1], deep_supervision=deep_supervision
        )

    def levels(self, image: Tensor, *, all_heads: bool) -> list[Tensor]:
        """Logits, finest first."""
        network = self.network
        encoder: list[nn.Module] = [network.input_block, *network.downsamples, network.bottleneck]
        *skips, features = _maps(self, encoder, image)
        coarse = []
        for level, upsample in zip(reversed(range(len(skips))), network.upsamples, strict=True):
            features = self.run(upsample, features, skips[level])
            if all_heads and 0 < level < self.num_heads:
                coarse.append(network.deep_supervision_heads[level - 1](features))
        return [network.output_block(features), *reversed(coarse)]


def _maps(part: Recomputing, stages: Sequence[nn.Module], features: Tensor) -> list[Tensor]:
    """Feature maps of all stages, finest first."""
    maps = []
    for stage in stages:
        features = part.run(stage, features)
        maps.append(features)
    return maps

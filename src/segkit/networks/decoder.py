"""The U-Net decoder: feature maps to logits, with a head a level for deep supervision."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from segkit.networks.attention_gate import AttentionGate, EqualResolutionGate, Gate
from segkit.networks.blocks import StackedConvBlocks, convolution, transposed_convolution
from segkit.networks.checkpointing import Recomputing
from segkit.networks.squeeze_excitation import SqueezeExcitation
from segkit.types import Size


class UNetDecoder(Recomputing):
    """Upsample, join the skip, convolve, level by level; a 1-voxel convolution makes logits of a level.

    Stages count from the deepest, as in nnU-Net (`transpconvs.0` leaves the bottleneck, the last of `seg_layers` is the
    full-resolution head). Only heads that are supervised are built: a head without weight has parameters without
    gradient, and nothing else.

    Args:
        features: Channels of each encoder stage, finest first.
        num_classes: Channels of the logits, background included.
        strides: Stride of each encoder stage and axis.
        kernel_sizes: Kernel of each encoder stage and axis.
        convolutions_per_stage: Convolutions of each decoder stage, deepest first.
        num_heads: Levels that get a head, counted from the finest.
        gate: The attention gate that weights each skip; None: skips are read as they are.
        squeeze_excitation: Whether each stage ends in a weighting of its channels.
    """

    def __init__(
        self,
        features: Sequence[int],
        num_classes: int,
        *,
        strides: Sequence[Size],
        kernel_sizes: Sequence[Size],
        convolutions_per_stage: Sequence[int],
        num_heads: int,
        gate: Gate | None = None,
        squeeze_excitation: bool = False,
    ) -> None:
        super().__init__()
        self.gate = gate
        levels = len(features) - 1
        self.transpconvs, self.stages, self.gates = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.excitations = nn.ModuleList()
        # Keyed by stage: the same names whether or not the coarse heads are there.
        self.seg_layers = nn.ModuleDict()
        one = (1,) * len(strides[0])
        for stage, count in enumerate(convolutions_per_stage):
            skip = levels - 1 - stage
            coarse, fine, stride, kernel = features[skip + 1], features[skip], strides[skip + 1], kernel_sizes[skip]
            self.transpconvs.append(transposed_convolution(coarse, fine, stride=stride))
            self.stages.append(StackedConvBlocks(2 * fine, fine, count=count, kernel_size=kernel))
            if gate == "grid":
                self.gates.append(AttentionGate(fine, coarse, stride=stride))
            elif gate == "equal_resolution":
                self.gates.append(EqualResolutionGate(fine, fine, dimensions=len(stride)))
            if squeeze_excitation:
                self.excitations.append(SqueezeExcitation(fine))
            if skip < num_heads:
                self.seg_layers[str(stage)] = convolution(fine, num_classes, kernel_size=one)

    def forward(self, maps: list[Tensor], *, all_heads: bool) -> list[Tensor]:
        """Logits, finest first: of every head, or of the finest alone.

        Args:
            maps: The encoder's feature maps, finest first.
            all_heads: Whether the coarser heads are computed as well.
        """
        *skips, features = maps
        outputs: list[Tensor] = []
        finest = len(self.stages) - 1
        for stage, skip in enumerate(reversed(skips)):
            features = self.run(partial(self._level, stage), features, skip)
            if str(stage) in self.seg_layers and (all_heads or stage == finest):
                outputs.insert(0, self.seg_layers[str(stage)](features))
        return outputs

    def _level(self, stage: int, features: Tensor, skip: Tensor) -> Tensor:
        """One level up: the coarser level's features, upsampled, beside the skip of this one."""
        upsampled = self.transpconvs[stage](features)
        if self.gate is not None:
            skip = self.gates[stage](skip, features if self.gate == "grid" else upsampled)
        out: Tensor = self.stages[stage](torch.cat((upsampled, skip), 1))
        return self.excitations[stage](out) if self.excitations else out

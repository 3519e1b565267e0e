"""The networks that are timed: one description from which ours, nnU-Net's and MONAI's are built alike."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

NETWORKS = tuple(
    sorted(
        path.stem
        for path in (Path(__file__).parents[1] / "configs" / "network").glob("*.yaml")
        if path.stem != "custom"
    )
)
"""What `network=` can be, but for the file that a user completes."""
_RESIDUAL_BLOCKS = (1, 3, 4, 6, 6, 6)
"""By stage, in nnU-Net's presets of the residual encoder."""

CLASSES = 3
"""Background, anterior and posterior hippocampus."""


@dataclass(frozen=True)
class Topology:
    """A plain U-Net with two convolutions of 3 voxels a stage, and what it is trained on.

    Args:
        name: As the report calls it.
        patch: Voxels of a patch.
        batch: Patches of a batch.
        features: Channels by stage; every stage but the first halves all axes.
    """

    name: str
    patch: tuple[int, int, int]
    batch: int
    features: tuple[int, ...]

    @property
    def strides(self) -> list[list[int]]:
        """Stride of each stage and axis."""
        return [[1, 1, 1]] + [[2, 2, 2]] * (len(self.features) - 1)

    @property
    def kernels(self) -> list[list[int]]:
        """Kernel of each stage and axis."""
        return [[3, 3, 3]] * len(self.features)

    @property
    def blocks(self) -> list[int]:
        """Residual blocks of each stage, for networks that have them."""
        return list(_RESIDUAL_BLOCKS[: len(self.features)])

    def inputs(self, device: str) -> tuple[Tensor, Tensor]:
        """A batch of noise with blocks of each class: image (B, 1, *S) float32, label (B, 1, *S) int64."""
        random = torch.Generator().manual_seed(0)
        image = torch.randn((self.batch, 1, *self.patch), generator=random)
        coarse = torch.randint(0, CLASSES, (self.batch, 1, *(size // 8 for size in self.patch)), generator=random)
        label = coarse.repeat_interleave(8, 2).repeat_interleave(8, 3).repeat_interleave(8, 4)
        return image.to(device), label.to(device)


SMOKE = Topology("a smoke run's", (16, 16, 16), 2, (8, 16, 32))
STEP = Topology("16.5 M parameters, (2, 1, 64, 64, 64)", (64, 64, 64), 2, (32, 64, 128, 256, 320))
HIPPOCAMPUS = Topology("nnU-Net's hippocampus plan at batch 2", (40, 56, 40), 2, (32, 64, 128, 256))
HIPPOCAMPUS_FULL = Topology("nnU-Net's hippocampus plan", (40, 56, 40), 9, (32, 64, 128, 256))
LARGE = Topology("128^3, batch 2", (128, 128, 128), 2, (32, 64, 128, 256, 320, 320))

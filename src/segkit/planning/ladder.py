"""The ladder: a few named sizes of network, patch, batch and schedule, from a laptop to a large GPU.

One table, so that a rung is tuned in one place. A rung and a fingerprint give the same network and batch on
any machine; the device only decides which rung `auto` means. Learning rates belong to AdamW, except on the
rungs of nnU-Net, whose rate belongs to SGD with Nesterov momentum 0.99.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from segkit.errors import UsageError
from segkit.planning.device import DeviceFacts
from segkit.planning.rules import RESIDUAL_BLOCKS, Budget

Mirror: TypeAlias = Literal["all", "patient"]


@dataclass(frozen=True)
class Rung:
    """One named size.

    Args:
        purpose: What it is for, in a few words.
        volumes: Budget for three spatial axes.
        pictures: Budget for two.
        blocks: Residual blocks by stage, for networks that have them.
        steps_per_epoch: Optimiser steps an epoch.
        max_epochs: Epochs by default.
        learning_rate: Peak rate.
        ema_decay: Of the average of the weights; 0 for none.
        mirror: Along which axes of volumes: "all", as nnU-Net, or "patient", left-right only, since along another one
            a mirror image is no possible patient. Long schedules learn from the impossible too; short ones pay for it.
    """

    purpose: str
    volumes: Budget
    pictures: Budget
    blocks: tuple[int, ...]
    steps_per_epoch: int
    max_epochs: int
    learning_rate: float
    ema_decay: float = 0.0
    mirror: Mirror = "all"

    def budget(self, dimensions: int) -> Budget:
        """The budget for 2 or 3 spatial axes."""
        return self.volumes if dimensions == 3 else self.pictures


_NNUNET_SCHEDULE: Mapping[str, Any] = MappingProxyType(
    {"blocks": RESIDUAL_BLOCKS, "steps_per_epoch": 250, "max_epochs": 1000, "learning_rate": 1e-2}
)

LADDER: Mapping[str, Rung] = MappingProxyType(
    {
        "tiny": Rung(
            purpose="tests: seconds on one core",
            volumes=Budget(8, 32, 1e7, 1, max_stages=3, dataset_share=1.0, max_batch=2, max_voxels=32**3),
            pictures=Budget(8, 32, 1e7, 1, max_stages=3, dataset_share=1.0, max_batch=4, max_voxels=128**2),
            blocks=(1, 1, 1),
            steps_per_epoch=4,
            max_epochs=2,
            learning_rate=2e-3,
        ),
        "small": Rung(
            purpose="a laptop or a small cloud machine without an accelerator: minutes",
            # Elements for a batch of 2 x 40x56x40 voxels, or a patch of 56x64x56; in 2D 2 x 256x256 pixels.
            volumes=Budget(16, 128, 24e6, 1, max_stages=4, dataset_share=1.0, max_batch=8, max_voxels=64**3),
            pictures=Budget(16, 128, 20.5e6, 1, max_stages=6, dataset_share=1.0, max_batch=16, max_voxels=384**2),
            blocks=(1, 2, 2, 2, 2, 2),
            steps_per_epoch=50,
            max_epochs=40,
            # Tuned on hippocampi of people that no reported number is of: with 2e-3 and no average, mirrored along all
            # axes, 900 steps of 4 patches reached what 225 of this do. In the same five minutes twice as many steps
            # of 2 patches came to a Dice of 0.875 against 0.871 (57 cases of 34 people, one seed each). On nuclei,
            # 300 steps of 2 pictures came to a score of 0.901, 150 of 4 to 0.895 (30 tuning pictures, one seed each).
            learning_rate=4e-3,
            ema_decay=0.99,
            mirror="patient",
        ),
        "base": Rung(
            purpose="one GPU with 8 GB: nnU-Net's default network and patch",
            volumes=Budget(32, 320, 560e6, 2),
            pictures=Budget(32, 512, 85e6, 12),
            blocks=RESIDUAL_BLOCKS,
            steps_per_epoch=250,
            max_epochs=200,
            learning_rate=1e-3,
        ),
        "large": Rung(
            purpose="one GPU with 24 GB: nnU-Net's ResEnc L (network=residual_unet)",
            # nnU-Net has no cap on the batch here; 16 keeps small data sets from being seen 100 times a step.
            volumes=Budget(32, 320, 2100e6, 2, encoder="residual", dataset_share=1.0, max_batch=16),
            pictures=Budget(32, 512, 380e6, 12, encoder="residual", dataset_share=1.0, max_batch=64),
            blocks=RESIDUAL_BLOCKS,
            steps_per_epoch=250,
            max_epochs=300,
            learning_rate=5e-4,
        ),
        "nnunet": Rung(
            purpose="nnU-Net's default, rule for rule",
            volumes=Budget(32, 320, 560e6, 2),
            pictures=Budget(32, 512, 85e6, 12),
            **_NNUNET_SCHEDULE,
        ),
        # nnU-Net's three presets of the residual encoder. They differ in patch and batch, not in the network's rules:
        # features and blocks of a stage are the same, and a larger patch has more stages where it can be halved again.
        "resenc_m": Rung(
            purpose="nnU-Net's ResEnc M, one GPU with 8 GB (network=residual_unet)",
            volumes=Budget(32, 320, 680e6, 2, encoder="residual", dataset_share=1.0),
            pictures=Budget(32, 512, 135e6, 12, encoder="residual", dataset_share=1.0),
            **_NNUNET_SCHEDULE,
        ),
        "resenc_l": Rung(
            purpose="nnU-Net's ResEnc L, one GPU with 24 GB (network=residual_unet)",
            volumes=Budget(32, 320, 2100e6, 2, encoder="residual", dataset_share=1.0),
            pictures=Budget(32, 512, 380e6, 12, encoder="residual", dataset_share=1.0),
            **_NNUNET_SCHEDULE,
        ),
        "resenc_xl": Rung(
            purpose="nnU-Net's ResEnc XL, one GPU with 40 GB (network=residual_unet)",
            volumes=Budget(32, 320, 3600e6, 2, encoder="residual", dataset_share=1.0),
            pictures=Budget(32, 512, 560e6, 12, encoder="residual", dataset_share=1.0),
            **_NNUNET_SCHEDULE,
        ),
    }
)

_BASE_NEEDS_GIB = 6.0


def choose_rung(name: str, device: DeviceFacts) -> tuple[str, str]:
    """The rung's name and why: as asked, or by the device where `auto` was asked.

    Raises:
        UsageError: For a name that is not on the ladder.
    """
    if name == "auto":
        if device.kind == "cuda" and device.memory_gib >= _BASE_NEEDS_GIB:
            return "base", f"{device.name} has {device.memory_gib:.0f} GiB (auto)"
        if device.kind == "cuda":
            return "small", f"{device.name} has only {device.memory_gib:.0f} GiB (auto)"
        return "small", f"no CUDA device, {device.cores} processor cores (auto)"
    if name not in LADDER:
        raise UsageError(
            f"there is no plan named {name!r}",
            where="plan.name",
            why=f"the ladder has {', '.join(LADDER)} and auto",
            mend="plan=auto",
        )
    return name, "asked for"

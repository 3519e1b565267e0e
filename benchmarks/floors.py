"""What the figures have to reach: theirs over ours, at least."""

from typing import Literal

from benchmarks.harness import Spread
from benchmarks.rows.component_loss import FEW, LOSSES

FLOORS: dict[tuple[str, str], float] = {
    ("augmentation", "nnU-Net"): 3.0,
    ("loss", "MONAI"): 1.0,
    ("scan", "step by step"): 100.0,
    **{("component_loss", f"loop {loss}, {FEW}"): 20.0 for loss in LOSSES},
    # From 59 components to 500 the cost grows by less than half.
    **{("component_loss", f"segkit {loss}, {FEW}"): 2 / 3 for loss in LOSSES},
    ("step", "nnU-Net"): 2.0,
    ("step", "MONAI"): 1.8,
    ("unet", "nnU-Net PlainConvUNet"): 1.0,
    ("unet", "nnU-Net ResidualEncoderUNet"): 1.0,
    ("unet", "MONAI DynUNet"): 1.0,
    ("epoch", "nnU-Net"): 2.5,
    ("preparation", "nnU-Net"): 2.0,
    ("memory", "nnU-Net"): 1.0,
    ("memory", "MONAI"): 1.0,
}
"""By row and peer, for two cores without a GPU."""

GPU_FLOORS: dict[tuple[str, str], float] = {
    **{("trainers", f"nnU-Net {plan}, 2 workers"): 1.5 for plan in ("128^3", "hippocampus")},
    **{("trainers", f"nnU-Net {plan}, 12 workers"): 1.0 for plan in ("128^3", "hippocampus")},
}
"""The same for a machine with a GPU."""

Verdict = Literal["met", "missed"]


def verdict(ratio: Spread, floor: float) -> Verdict:
    """Whether the median reaches the floor; the spread beside it says how surely."""
    return "met" if ratio.median >= floor else "missed"

"""Our U-Nets beside nnU-Net's and MONAI's: forward and backward of the same topology."""

from collections.abc import Mapping

import torch

from benchmarks.bench import Bench
from benchmarks.harness import Contender, Pair, Row
from benchmarks.rows.network import DYNUNET, FP32, PLAIN, RESIDUAL, contender, ours, peer

TIMES = 2
"""Passes of a round."""


def contenders(bench: Bench) -> Mapping[str, Contender]:
    """Each peer and ours in float32, and both under autocast to bfloat16."""
    found = {}
    for name, network, supervision in (
        (PLAIN, "unet", True),
        (RESIDUAL, "residual_unet", True),
        (DYNUNET, "unet", False),
    ):
        mine = _mine(name)
        found[name] = contender(bench, peer(bench, name), "float32", times=TIMES)
        found[f"{mine} fp32"] = contender(
            bench, ours(bench, network, precision=FP32, deep_supervision=supervision), "float32", times=TIMES
        )
        found[f"{name} bf16"] = contender(bench, peer(bench, name, dtype=torch.bfloat16), "bf16 autocast", times=TIMES)
        found[mine] = contender(
            bench, ours(bench, network, precision="bf16-mixed", deep_supervision=supervision), "bf16", times=TIMES
        )
    return found


def _mine(name: str) -> str:
    return {PLAIN: "segkit unet", RESIDUAL: "segkit residual_unet", DYNUNET: "segkit unet, one head"}[name]


ROW = Row(
    name="unet",
    title="U-Net, forward and backward",
    what="The passes of the row `network`, of the U-Nets alone: the same topology and heads on both sides, beside "
    "nnU-Net's as many weights. MONAI's DynUNet, which has no biases before a normalisation, with one head on both, "
    "since it brings its supervised levels to full size. The floor is held in "
    "float32 on both sides; below it both under autocast to bfloat16, which nnU-Net does not use on a processor.",
    unit="s",
    contenders=contenders,
    pairs=tuple(
        pair
        for name in (PLAIN, RESIDUAL, DYNUNET)
        for pair in (Pair(name, f"{_mine(name)} fp32"), Pair(f"{name} bf16", _mine(name)))
    ),
    rounds=7,
)

"""A training step: forward, loss, backward, clipping, the optimizer."""

from collections.abc import Callable, Mapping

import torch

from benchmarks.bench import Bench
from benchmarks.harness import Contender, Pair, Row, Run, timed
from benchmarks.topology import HIPPOCAMPUS, STEP, Topology

PAIRS = (
    Pair("nnU-Net", "segkit", "segkit fp32"),
    Pair("MONAI", "segkit, one head", "segkit fp32, one head"),
    Pair("MONAI bf16", "segkit, one head"),
)


def contenders(bench: Bench) -> Mapping[str, Contender]:
    """All of one topology, patch and batch, with SGD and Nesterov's momentum."""
    topology = HIPPOCAMPUS if bench.quick else STEP

    def contender(make: Callable[[Bench, Topology], Callable[[], object]], precision: str) -> Contender:
        def build() -> Run:
            return timed(make(bench, topology), unit="s")

        return Contender(build, precision)

    return {
        "segkit": contender(lambda b, t: ours(b, t), "the plan's"),
        "segkit fp32": contender(lambda b, t: ours(b, t, precision="32-true"), "float32"),
        "nnU-Net": contender(nnunet, "float32" if bench.device == "cpu" else "fp16 autocast, compiled"),
        "segkit, one head": contender(lambda b, t: ours(b, t, deep_supervision=False), "the plan's"),
        "segkit fp32, one head": contender(
            lambda b, t: ours(b, t, precision="32-true", deep_supervision=False), "float32"
        ),
        "MONAI": contender(lambda b, t: monai(b, t), "float32"),
        "MONAI bf16": contender(lambda b, t: monai(b, t, autocast=torch.bfloat16), "bf16 autocast"),
    }


def ours(
    bench: Bench, topology: Topology, *, precision: str | None = None, deep_supervision: bool = True
) -> Callable[[], object]:
    """See `benchmarks.ours.step`."""
    from benchmarks.ours import step

    return step(bench, topology, precision=precision, deep_supervision=deep_supervision)


def nnunet(bench: Bench, topology: Topology) -> Callable[[], object]:
    """See `benchmarks.peers.nnunet.step`."""
    from benchmarks.peers.nnunet import step

    return step(bench, topology)


def monai(bench: Bench, topology: Topology, *, autocast: torch.dtype | None = None) -> Callable[[], object]:
    """See `benchmarks.peers.monai.step`."""
    from benchmarks.peers.monai import step

    return step(bench, topology, autocast=autocast)


ROW = Row(
    name="step",
    title="Training step",
    what="Forward, Dice + cross-entropy, backward, clipping at 12, SGD with Nesterov's momentum; plain 3D U-Net of "
    "16.5 M parameters, (2, 1, 64, 64, 64). Against nnU-Net's `train_step` with deep supervision; against MONAI's "
    "DynUNet with one head on both sides, since it brings its supervised levels to full size.",
    unit="s",
    contenders=contenders,
    pairs=PAIRS,
    rounds=5,
)

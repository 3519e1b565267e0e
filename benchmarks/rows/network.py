"""Forward and backward of every network there is, at one patch and one plan."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.bench import Bench, synchronise
from benchmarks.harness import Contender, Pair, Row, Unit, timed
from benchmarks.topology import HIPPOCAMPUS, NETWORKS, SMOKE, Topology

PLAIN, RESIDUAL, DYNUNET = "nnU-Net PlainConvUNet", "nnU-Net ResidualEncoderUNet", "MONAI DynUNet"
FP32 = "32-true"

Pass = Callable[[], None]
"""One forward and backward pass."""


def topology(bench: Bench) -> Topology:
    """What all of them are built for."""
    return SMOKE if bench.quick else HIPPOCAMPUS


def contenders(bench: Bench) -> Mapping[str, Contender]:
    """Every network in float32 and as it comes, and the peers in float32."""
    found = {}
    for name in NETWORKS:
        found[f"segkit {name} fp32"] = contender(bench, ours(bench, name, precision=FP32), "float32")
        found[f"segkit {name}"] = contender(bench, ours(bench, name), "the plan's")
    return found | {name: contender(bench, peer(bench, name), "float32") for name in (PLAIN, RESIDUAL, DYNUNET)}


def contender(bench: Bench, make: Callable[[], Pass], precision: str, *, times: int = 1, unit: Unit = "s") -> Contender:
    """One of a row that is timed; a smoke run makes a single pass a round."""
    return Contender(lambda: timed(make(), unit=unit, times=bench.pick(times, 1)), precision)


def ours(
    bench: Bench, name: str, *, precision: str | None = None, deep_supervision: bool | None = None
) -> Callable[[], Pass]:
    """One of ours, built when it is called; see `benchmarks.ours.network`."""

    def build() -> Pass:
        from benchmarks.ours import network
        from segkit.inference.predictor import autocast

        built, chosen = network(bench, topology(bench), name, precision=precision, deep_supervision=deep_supervision)
        return _pass(bench, built, lambda: autocast(torch.device(bench.device), chosen))

    return build


def peer(bench: Bench, name: str, *, dtype: torch.dtype | None = None) -> Callable[[], Pass]:
    """One of nnU-Net's or MONAI's, built when it is called; in float32, or under autocast to a type."""

    def build() -> Pass:
        if name == DYNUNET:
            from benchmarks.peers import monai

            built = monai.network(topology(bench), bench.device)
        else:
            from benchmarks.peers import nnunet

            built = nnunet.network(topology(bench), "residual" if name == RESIDUAL else "plain", bench.device)
        return _pass(
            bench, built, lambda: nullcontext() if dtype is None else torch.autocast(bench.device, dtype=dtype)
        )

    return build


def _pass(bench: Bench, network: nn.Module, arithmetic: Callable[[], AbstractContextManager[Any]]) -> Pass:
    image, _ = topology(bench).inputs(bench.device)
    network.train()

    def one() -> None:
        network.zero_grad(set_to_none=True)
        with arithmetic():
            outputs = network(image)
        energy(outputs).backward()
        synchronise(bench)

    return one


def energy(outputs: Tensor | list[Tensor]) -> Tensor:
    """What is differentiated in place of a loss: the sum over the heads of the mean of their squared logits."""
    heads = [outputs] if isinstance(outputs, Tensor) else outputs
    return torch.stack([logits.float().square().mean() for logits in heads]).sum()


ROW = Row(
    name="network",
    title="Every network",
    what="Forward and backward of every file of `configs/network` with its own settings, deeply supervised where it "
    "is, at (2, 1, 40, 56, 40) and nnU-Net's hippocampus plan (32, 64, 128, 256 channels); those whose width or depth "
    "is their own take what they take of it (docs/networks.md). The loss is the sum of the heads' mean squares. One "
    "pass each after one of warm-up: an order of magnitude; the U-Nets are compared in the row `unet`.",
    unit="s",
    contenders=contenders,
    pairs=tuple(Pair(PLAIN, f"segkit {name}", f"segkit {name} fp32") for name in NETWORKS),
    rounds=1,
)

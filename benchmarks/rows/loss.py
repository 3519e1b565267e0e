"""Dice plus cross-entropy, forward and backward."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch

from benchmarks.bench import Bench, synchronise
from benchmarks.harness import Contender, Pair, Row, timed
from benchmarks.topology import CLASSES, STEP

SHAPE = (2, CLASSES, 96, 96, 96)


def contenders(bench: Bench) -> Mapping[str, Contender]:
    """Each takes the same logits and labels."""
    full, half = torch.float32, torch.bfloat16
    times = bench.pick(3, 1)

    def contender(criterion: Callable[[Bench], Callable[..., Any]], dtype: torch.dtype) -> Contender:
        def build() -> Any:  # noqa: ANN401
            return timed(_pass(bench, criterion(bench), dtype), unit="ms", times=times)

        return Contender(build, "bf16 logits, autocast" if dtype is half else "float32")

    return {
        "segkit": contender(_ours, full),
        "nnU-Net": contender(_nnunet, full),
        "MONAI": contender(_monai, full),
        "segkit bf16": contender(_ours, half),
        "MONAI bf16": contender(_monai, half),
    }


def _pass(bench: Bench, criterion: Callable[..., torch.Tensor], dtype: torch.dtype) -> Callable[[], None]:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(SHAPE, generator=random).to(bench.device, dtype).requires_grad_()
    coarse = torch.randint(0, CLASSES, (2, 1, 12, 12, 12), generator=random)
    label = coarse.repeat_interleave(8, 2).repeat_interleave(8, 3).repeat_interleave(8, 4).to(bench.device)

    def one() -> None:
        logits.grad = None
        with nullcontext() if dtype is torch.float32 else torch.autocast(bench.device, dtype=dtype):
            value = criterion(logits, label)
        torch.autograd.backward(value)
        synchronise(bench)

    return one


def _ours(bench: Bench) -> Callable[..., Any]:
    from benchmarks.ours import overrides, planned
    from segkit.configuration import build_loss
    from segkit.types import Target

    criterion = build_loss(*planned(overrides(bench, STEP)))
    return lambda logits, label: criterion(logits, Target(label))


def _nnunet(bench: Bench) -> Callable[..., Any]:
    from benchmarks.peers.nnunet import trainer

    criterion: Callable[..., Any] = trainer(bench, STEP).loss.loss
    return criterion


def _monai(bench: Bench) -> Callable[..., Any]:
    from benchmarks.peers.monai import loss

    del bench
    return loss()


ROW = Row(
    name="loss",
    title="Dice + cross-entropy",
    what="Forward and backward on logits of (2, 3, 96, 96, 96), one level, no Dice of the background. In float32 for "
    "all, and once more for logits as they come under bf16 autocast.",
    unit="ms",
    contenders=contenders,
    pairs=(Pair("MONAI", "segkit"), Pair("nnU-Net", "segkit"), Pair("MONAI bf16", "segkit bf16")),
    rounds=15,
    warmup=2,
)

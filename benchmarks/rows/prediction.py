"""A whole image by sliding window."""

from collections.abc import Callable, Mapping

import torch

from benchmarks.bench import Bench
from benchmarks.harness import Contender, Pair, Row, timed
from benchmarks.topology import HIPPOCAMPUS as TOPOLOGY

IMAGE = (80, 112, 80)


def contenders(bench: Bench) -> Mapping[str, Contender]:
    """All of one topology, on the same image, half a patch from tile to tile, no mirrored images."""
    shape = TOPOLOGY.patch if bench.quick else IMAGE
    image = torch.randn((1, *shape), generator=torch.Generator().manual_seed(0))

    def contender(make: Callable[[Bench, torch.Tensor], Callable[[], object]], precision: str) -> Contender:
        return Contender(lambda: timed(make(bench, image), unit="s"), precision)

    return {
        "segkit": contender(lambda b, i: _ours(b, i, None), "the plan's"),
        "segkit fp32": contender(lambda b, i: _ours(b, i, "32-true"), "float32"),
        "nnU-Net": contender(_nnunet, "float32" if bench.device == "cpu" else "fp16 autocast, compiled"),
        "MONAI": contender(_monai, "float32"),
    }


def _ours(bench: Bench, image: torch.Tensor, precision: str | None) -> Callable[[], object]:
    from benchmarks.ours import predictor

    predict = predictor(bench, TOPOLOGY, precision=precision)
    return lambda: predict(image)


def _nnunet(bench: Bench, image: torch.Tensor) -> Callable[[], object]:
    from benchmarks.peers.nnunet import predictor

    predict = predictor(bench, TOPOLOGY)
    return lambda: predict.predict_sliding_window_return_logits(image).cpu()


def _monai(bench: Bench, image: torch.Tensor) -> Callable[[], object]:
    from benchmarks.peers.monai import predictor

    predict = predictor(bench, TOPOLOGY)
    return lambda: predict(image)


ROW = Row(
    name="prediction",
    title="Whole image",
    what="Logits of an image of 80x112x80 voxels by sliding window, nnU-Net's hippocampus network, tiles of 40x56x40 "
    "half a patch apart, Gaussian weights, no mirrored images.",
    unit="s",
    contenders=contenders,
    pairs=(Pair("nnU-Net", "segkit", "segkit fp32"), Pair("MONAI", "segkit", "segkit fp32")),
    rounds=4,
)

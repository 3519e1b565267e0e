"""nnU-Net's recipe, by sample."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from benchmarks.bench import Bench, synchronise
from benchmarks.harness import Contender, Measured, Pair, Row, Run, timed
from benchmarks.topology import CLASSES

PATCH = (96, 96, 96)
SOURCE = (120, 120, 120)
BATCH = 2


def contenders(bench: Bench) -> Mapping[str, Contender]:
    """Each augments the same noise with blocks of labels, again and again with new parameters."""
    samples = bench.pick(40, 4)
    return {
        "segkit": Contender(lambda: _ours(bench, samples), "float32"),
        "nnU-Net": Contender(lambda: timed(_nnunet(), unit="ms", times=samples), "float32"),
        "MONAI": Contender(lambda: timed(_monai(), unit="ms", times=samples), "float32"),
    }


def _sample() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    image = torch.randn((1, *SOURCE), generator=random)
    coarse = torch.randint(0, CLASSES, (1, *(size // 8 for size in SOURCE)), generator=random)
    return image, coarse.repeat_interleave(8, 1).repeat_interleave(8, 2).repeat_interleave(8, 3)


def _ours(bench: Bench, samples: int) -> Run:
    from segkit.configuration import build_recipe, compose
    from segkit.types import Batch, Target

    recipe = build_recipe(compose("train", ["augmentation=nnunet"]))
    image, label = (torch.stack([tensor] * BATCH).to(bench.device) for tensor in _sample())
    batch = Batch(image, Target(label), None, ("noise",) * BATCH, tuple(range(BATCH)))
    rounds, position = -(-samples // BATCH), 0

    def run() -> Measured:
        def one() -> None:
            nonlocal position
            n = tuple(range(position, position + BATCH))
            recipe(replace(batch, n=n), patch_size=PATCH, seed=0, flip_axes=(0, 1, 2))
            position += BATCH

        mean = timed(one, unit="ms", times=rounds)()
        synchronise(bench)
        return Measured(mean.value / BATCH)

    return run


def _nnunet() -> Callable[[], object]:
    from benchmarks.peers.nnunet import transforms

    apply, (image, label) = transforms(PATCH), _sample()
    label = label.to(torch.int16)
    return lambda: apply(image=image.clone(), segmentation=label.clone())


def _monai() -> Callable[[], object]:
    from benchmarks.peers.monai import transforms

    apply, (image, label) = transforms(PATCH), _sample()
    return lambda: apply({"image": image, "label": label})


ROW = Row(
    name="augmentation",
    title="Augmentation, a sample",
    what="nnU-Net's recipe on a 96^3 sample cut from 120^3, one thread, the target's pyramid left out. Ours by batches "
    "of 2 on the device; nnU-Net's by batchgeneratorsv2; MONAI's nearest transforms with the same probabilities.",
    unit="ms",
    contenders=contenders,
    pairs=(Pair("nnU-Net", "segkit"), Pair("MONAI", "segkit")),
    rounds=7,
    threads=1,
)

"""Instance-aware losses, forward and backward, against a loop over the components."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.bench import Bench, synchronise
from benchmarks.harness import Contender, Pair, Row, timed

FEW, MANY = "96^3 with 59", "96^3 with 500"
SCENES: Mapping[str, tuple[int, int]] = {FEW: (96, 59), MANY: (96, 500), "128^3 with 500": (128, 500)}
"""Voxels along an axis and number of components."""
LOSSES = ("blob", "blob_dice", "region_dice", "component_dice_ce")


def scene(size: int, count: int) -> tuple[Tensor, Tensor]:
    """A cubic lattice of cubes, a third as wide as they are apart: label and ids (1, 1, size, size, size)."""
    side = next(n for n in range(1, size) if n**3 >= count)
    apart = size // side
    width = max(1, apart // 3)
    ids = torch.zeros(1, 1, size, size, size, dtype=torch.int16)
    places = torch.randperm(side**3, generator=torch.Generator().manual_seed(0))[:count].tolist()
    for number, place in enumerate(places, start=1):
        x, y, z = ((place // side**axis) % side * apart + 1 for axis in range(3))
        ids[0, 0, x : x + width, y : y + width, z : z + width] = number
    return (ids > 0).long(), ids


def contenders(bench: Bench) -> Mapping[str, Contender]:
    """Each takes the same logits of two classes, label, ids and cells."""
    names = [(loss, place) for loss in LOSSES for place in SCENES]
    ours = {
        f"segkit {loss}, {place}": _contender(bench, _ours(loss), place, times=bench.pick(3, 1))
        for loss, place in names
    }
    loops = {f"loop {loss}, {FEW}": _contender(bench, _loop(loss), FEW, times=1) for loss in LOSSES}
    return {**ours, **loops}


def _contender(bench: Bench, criterion: Callable[[Any, Any], Any], place: str, *, times: int) -> Contender:
    def build() -> Any:  # noqa: ANN401
        return timed(_pass(bench, criterion, place), unit="ms", times=times)

    return Contender(build, "float32")


def _pass(bench: Bench, criterion: Callable[[Any, Any], Any], place: str) -> Callable[[], None]:
    from segkit.ops.instances import voronoi_cells
    from segkit.types import Target

    size, count = SCENES[place]
    label, ids = scene(size, count)
    cells = torch.from_numpy(voronoi_cells(ids[0, 0].numpy(), (1.0, 1.0, 1.0)))[None, None]
    target = Target(label=label, instances=ids, cells=cells, num_instances=count).to(bench.device)
    shape = (1, 2, size, size, size)
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(bench.device).requires_grad_()

    def one() -> None:
        logits.grad = None
        torch.autograd.backward(criterion(logits, target))
        synchronise(bench)

    return one


def _ours(name: str) -> Callable[[Any, Any], Any]:
    from segkit.losses.blob import BlobLoss
    from segkit.losses.blob_dice import BlobDiceLoss
    from segkit.losses.component_dice_ce import ComponentDiceCELoss
    from segkit.losses.region_dice import RegionDiceLoss

    losses = {
        "blob": BlobLoss,
        "blob_dice": BlobDiceLoss,
        "region_dice": RegionDiceLoss,
        "component_dice_ce": ComponentDiceCELoss,
    }
    return losses[name]()


def _loop(name: str) -> Callable[[Any, Any], Any]:
    """The same loss of one class as it is mostly written: the loss of the image, called on each component's mask."""
    regions: Literal["instances", "cells"] = "instances" if name == "blob" else "cells"

    def criterion(logits: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
        p = logits.softmax(1)[:, 1:]
        loss: Tensor = 1 - (2 * (p * truth).sum() + 1e-5) / ((p * mask).sum() + truth.sum() + 1e-5)
        if name in ("blob", "component_dice_ce"):
            surprise = F.cross_entropy(logits, truth[:, 0].long(), reduction="none")[:, None]
            loss = loss + (surprise * mask).sum() / mask.sum()
        return loss

    def loss(logits: Tensor, target: Any) -> Tensor:  # noqa: ANN401
        ids = getattr(target, regions)
        losses = []
        for k in range(1, target.num_instances + 1):
            mask = (ids == k) | (ids == 0) if regions == "instances" else ids == k
            losses.append(criterion(logits, (target.label > 0) & mask, mask))
        return torch.stack(losses).mean()

    return loss


ROW = Row(
    name="component_loss",
    title="Instance-aware losses",
    what="Forward and backward on float32 logits of two classes, one image, one thread: a size with so many "
    "components. Beside them the loss of the image called once a component, at 59; and ours at 500 of the same size.",
    unit="ms",
    contenders=contenders,
    pairs=(
        *(Pair(f"loop {loss}, {FEW}", f"segkit {loss}, {FEW}") for loss in LOSSES),
        *(Pair(f"segkit {loss}, {FEW}", f"segkit {loss}, {MANY}") for loss in LOSSES),
    ),
    rounds=7,
    warmup=1,
    threads=1,
)

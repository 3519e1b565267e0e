"""An epoch end to end: loading, augmentation, steps, and what each puts round them."""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

from benchmarks.bench import Bench
from benchmarks.harness import Contender, Measured, Pair, Row, Run
from benchmarks.memory import children_mb, peak_mb
from benchmarks.peers import nnunet as peer
from benchmarks.topology import HIPPOCAMPUS, Topology

OURS_IMPORTS = ("segkit.workflows.train",)


def contenders(bench: Bench) -> Mapping[str, Contender]:
    """A process each: their loaders outlive an epoch."""
    steps, warmup = bench.pick(25, 3), bench.pick(3, 1)
    if bench.device == "cuda":
        steps, warmup = bench.pick(150, 10), bench.pick(50, 5)

    def ours(precision: str | None) -> Contender:
        return Contender(
            lambda: trained_by_segkit(bench, HIPPOCAMPUS, steps=steps, precision=precision),
            "float32" if precision else "the plan's",
            apart=True,
            imports=OURS_IMPORTS,
        )

    def theirs(workers: int | None) -> Contender:
        return Contender(
            lambda: trained_by_nnunet(bench, HIPPOCAMPUS, warmup=warmup, steps=steps, workers=workers),
            "float32" if bench.device == "cpu" else "fp16 autocast, compiled",
            apart=True,
            imports=peer.IMPORTS,
        )

    found = {"segkit": ours(None), "segkit fp32": ours("32-true"), "nnU-Net": theirs(None)}
    return found | ({"nnU-Net, 2 workers": theirs(2)} if _own_workers() != 2 else {})


def trained_by_segkit(
    bench: Bench,
    topology: Topology,
    *,
    steps: int,
    precision: str | None = None,
    workers: int | None = None,
    around: AbstractContextManager[object] | None = None,
) -> Run:
    """Two epochs of `segkit train`; the second is timed, its checkpoint included."""
    from benchmarks.ours import overrides, train

    words = overrides(bench, topology, precision=precision)
    words += [] if workers is None else [f"data.workers={workers}"]

    def run() -> Measured:
        clock, timings = train(words, steps=steps, epochs=2, around=around)
        beside = {"data_wait": timings["time/data_wait"], "peak_mb": peak_mb(), "workers_mb": children_mb()}
        if bench.device == "cuda":
            beside["device_mb"] = timings["memory/device_gb"] * 1e3
        return Measured((clock.end - clock.warm) / steps, beside)

    return run


def trained_by_nnunet(
    bench: Bench,
    topology: Topology,
    *,
    warmup: int,
    steps: int,
    workers: int | None = None,
    around: AbstractContextManager[object] | None = None,
) -> Run:
    """Steps of nnU-Net's trainer that do not count, then an epoch."""

    def run() -> Measured:
        seconds, waited, finish = peer.epoch(
            bench, topology, warmup=warmup, steps=steps, workers=workers, around=around or nullcontext()
        )
        beside = {"data_wait": waited / seconds, "peak_mb": peak_mb(), "workers_mb": children_mb()}
        if bench.device == "cuda":
            import torch

            beside["device_mb"] = torch.cuda.max_memory_allocated() / 1e6
        finish()
        return Measured(seconds / steps, beside)

    return run


def _own_workers() -> int:
    """What nnU-Net chooses by itself where it does not know the host's name."""
    return min(12, os.cpu_count() or 1)


def _before(bench: Bench) -> None:
    from benchmarks.prepared import prepare_both

    prepare_both(bench)


ROW = Row(
    name="epoch",
    title="Epoch, a step",
    what="An epoch of each trainer in a process of its own, by step: loading, augmentation, the step, and what happens "
    "at an epoch's end (ours writes its checkpoint in that time, nnU-Net writes none before the 50th). nnU-Net's "
    "hippocampus network and patch at batch 2, all cases, no validation; a first epoch (nnU-Net: a few "
    "steps) is not counted.",
    unit="s",
    contenders=contenders,
    pairs=(Pair("nnU-Net", "segkit", "segkit fp32"), Pair("nnU-Net, 2 workers", "segkit", "segkit fp32")),
    rounds=3,
    warmup=0,
    before=_before,
)

"""nnU-Net's trainer and ours at the same plan on a GPU, with few and with many workers."""

from collections.abc import Callable, Mapping
from functools import partial

from benchmarks import gpu
from benchmarks.bench import Bench
from benchmarks.harness import Contender, Measured, Pair, Row, Run
from benchmarks.peers import nnunet as peer
from benchmarks.phantoms import make_phantoms
from benchmarks.rows.epoch import OURS_IMPORTS, trained_by_nnunet, trained_by_segkit
from benchmarks.topology import HIPPOCAMPUS_FULL, LARGE

WORKERS = (2, 4, 12)
PLANS = {"128^3": LARGE, "hippocampus": HIPPOCAMPUS_FULL}


def contenders(bench: Bench) -> Mapping[str, Contender]:
    """Every plan with every number of workers, each in a process of its own."""
    found = {}
    steps, warmup = bench.pick(150, 6), bench.pick(40, 3)
    for plan, topology in PLANS.items():
        data = make_phantoms(bench) if topology is LARGE else bench
        for workers in WORKERS:
            at = f"{plan}, {workers} workers"
            ours = partial(trained_by_segkit, data, topology, steps=steps, workers=workers)
            theirs = partial(trained_by_nnunet, data, topology, warmup=warmup, steps=steps, workers=workers)
            found[f"segkit {at}"] = Contender(partial(_watched, ours), "the plan's", True, OURS_IMPORTS)
            found[f"nnU-Net {at}"] = Contender(partial(_watched, theirs), "fp16, compiled", True, peer.IMPORTS)
    return found


def _watched(training: Callable[..., Run]) -> Run:
    """The training with the GPU's use over the timed epoch beside it."""
    use = gpu.Watch()
    run = training(around=use)

    def watched() -> Measured:
        measured = run()
        beside = {"steps_per_s": 1 / measured.value, "gpu_use": use.mean}
        return Measured(measured.value, {**measured.beside, **beside})

    return watched


def _before(bench: Bench) -> None:
    from benchmarks.prepared import prepare_both

    prepare_both(bench)
    prepare_both(make_phantoms(bench))


ROW = Row(
    name="trainers",
    title="Trainers on a GPU, a step",
    what="The row `epoch` at two plans with 2, 4 and 12 loader processes: nnU-Net's trainer as it is (compiled, fp16) "
    "and ours, with steps a second, the GPU's use, peak memory and the share of time spent waiting for data.",
    unit="s",
    contenders=contenders,
    pairs=tuple(
        Pair(f"nnU-Net {plan}, {workers} workers", f"segkit {plan}, {workers} workers")
        for plan in PLANS
        for workers in WORKERS
    ),
    rounds=2,
    warmup=0,
    devices=frozenset({"cuda"}),
    before=_before,
)

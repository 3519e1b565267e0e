"""The most memory that a training step takes."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from benchmarks.bench import Bench
from benchmarks.harness import Contender, Measured, Row, Run
from benchmarks.memory import peak_mb
from benchmarks.peers import monai, nnunet
from benchmarks.rows import step

IMPORTS = {"segkit": ("benchmarks.ours",), "nnU-Net": nnunet.IMPORTS, "MONAI": monai.IMPORTS}
STEPS = 2
"""The second has all that the first had, and the optimizer's momentum besides."""
LEFT_OUT = "MONAI bf16"


def contenders(bench: Bench) -> Mapping[str, Contender]:
    """Those of the row `step`, each in a process of its own."""
    found = {}
    for name, contender in step.contenders(bench).items():
        if name == LEFT_OUT:
            continue
        project = next(known for known in IMPORTS if name.startswith(known))
        build = _peak_of(bench, contender.build)
        found[name] = replace(contender, build=build, apart=True, imports=IMPORTS[project])
    return found


def _peak_of(bench: Bench, build: Callable[[], Run]) -> Callable[[], Run]:
    def built() -> Run:
        one = build()

        def run() -> Measured:
            for _ in range(STEPS):
                one()
            if bench.device == "cuda":
                import torch

                return Measured(torch.cuda.max_memory_allocated() / 1e6, {"peak_mb": peak_mb()})
            return Measured(peak_mb())

        return run

    return built


ROW = Row(
    name="memory",
    title="Peak memory of a step",
    what="The most resident memory of a process that makes two of the steps above, on a GPU the most that torch had "
    "allocated there; beside it what the process had after its imports.",
    unit="MB",
    contenders=contenders,
    pairs=tuple(pair for pair in step.PAIRS if pair.peer != LEFT_OUT),
    rounds=2,
    warmup=0,
)

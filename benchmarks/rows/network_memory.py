"""The most memory that forward and backward of each network takes."""

from collections.abc import Callable, Mapping

from benchmarks.bench import Bench
from benchmarks.harness import Contender, Measured, Pair, Row, Run
from benchmarks.memory import peak_mb
from benchmarks.peers import monai, nnunet
from benchmarks.rows.network import DYNUNET, FP32, PLAIN, RESIDUAL, Pass, ours, peer
from benchmarks.topology import NETWORKS

OURS = ("benchmarks.ours",)
ONE_HEAD = "segkit unet fp32, one head"


def contenders(bench: Bench) -> Mapping[str, Contender]:
    """Each in a process of its own: every network and the peers in float32, U-Nets also as they come."""
    found = {f"segkit {name} fp32": _apart(bench, ours(bench, name, precision=FP32), "float32") for name in NETWORKS}
    found[ONE_HEAD] = _apart(bench, ours(bench, "unet", precision=FP32, deep_supervision=False), "float32")
    for name in ("unet", "residual_unet"):
        found[f"segkit {name}"] = _apart(bench, ours(bench, name), "the plan's")
    for name, imports in ((PLAIN, nnunet.IMPORTS), (RESIDUAL, nnunet.IMPORTS), (DYNUNET, monai.IMPORTS)):
        found[name] = _apart(bench, peer(bench, name), "float32", imports=imports)
    return found


def _apart(bench: Bench, make: Callable[[], Pass], precision: str, *, imports: tuple[str, ...] = OURS) -> Contender:
    def build() -> Run:
        one = make()

        def run() -> Measured:
            one()
            if bench.device == "cuda":
                import torch

                return Measured(torch.cuda.max_memory_allocated() / 1e6, {"peak_mb": peak_mb()})
            return Measured(peak_mb())

        return run

    return Contender(build, precision, apart=True, imports=imports)


ROW = Row(
    name="network_memory",
    title="Peak memory of a network",
    what="The most resident memory of a process that makes one pass of the row `network`, on a GPU the most that torch "
    "had allocated there; beside it what the process had after its imports.",
    unit="MB",
    contenders=contenders,
    pairs=(
        Pair(PLAIN, "segkit unet", "segkit unet fp32"),
        Pair(RESIDUAL, "segkit residual_unet", "segkit residual_unet fp32"),
        Pair(DYNUNET, ONE_HEAD),
    ),
    rounds=1,
    warmup=0,
)

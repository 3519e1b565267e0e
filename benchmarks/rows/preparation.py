"""From raw images to prepared cases."""

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.harness import Contender, Measured, Pair, Row, Run
from benchmarks.process import run_python


def contenders(bench: Bench) -> Mapping[str, Contender]:
    """Each from its command line into an empty folder, Python's start included."""

    def ours(folder: Path) -> tuple[list[str], dict[str, str]]:
        from benchmarks.ours import prepare

        return prepare(bench, folder / "cache"), {}

    def theirs(processes: int | None) -> Callable[[Path], tuple[list[str], dict[str, str]]]:
        def command(folder: Path) -> tuple[list[str], dict[str, str]]:
            from benchmarks.peers.nnunet import environment, link_raw, prepare

            link_raw(bench, folder)
            return prepare(processes=processes), environment(folder)

        return command

    return {
        "segkit": Contender(lambda: _commanded(bench, ours), "float32"),
        "nnU-Net": Contender(lambda: _commanded(bench, theirs(None)), "float32"),
        "nnU-Net, a process a core": Contender(lambda: _commanded(bench, theirs(bench.cores)), "float32"),
    }


def _commanded(bench: Bench, command: Callable[[Path], tuple[list[str], dict[str, str]]]) -> Run:
    def run() -> Measured:
        folder = Path(tempfile.mkdtemp(dir=bench.workspace))
        try:
            words, environment = command(folder)
            started = time.perf_counter()
            run_python(words, environment=environment)
            return Measured(time.perf_counter() - started)
        finally:
            shutil.rmtree(folder)

    return run


ROW = Row(
    name="preparation",
    title="Preparation",
    what="Check, fingerprint, plan and preparation of every case, from the command line into an empty folder. "
    "nnU-Net's `plan_and_preprocess` for 3d_fullres alone and without its integrity check, which ours always makes; "
    "with the number of processes it chooses, and with one a core.",
    unit="s",
    contenders=contenders,
    pairs=(Pair("nnU-Net", "segkit"), Pair("nnU-Net, a process a core", "segkit")),
    rounds=3,
    warmup=0,
)

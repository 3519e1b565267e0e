"""Time segkit beside nnU-Net and MONAI: `python -m benchmarks [ROW ...] [--quick] [--data DIR]`, or `make bench`.

Run from the root of a checkout, in an environment that has the peers (`make bench` makes it). See benchmarks/README.md.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from benchmarks import report
from benchmarks.bench import Bench, DeviceKind
from benchmarks.floors import FLOORS, GPU_FLOORS
from benchmarks.harness import measure, quietly
from benchmarks.report import Outcome
from benchmarks.rows import NAMES, load
from benchmarks.run_one import apart
from segkit.configuration.thread_waiting import settle_waiting

RESULTS = Path(__file__).resolve().parent / "results"
DATA = "SEGKIT_BENCH_DATA"


def main(arguments: Sequence[str]) -> int:
    """Run the rows, print and write the reports; 1 where a row failed."""
    asked = _parse(arguments)
    # As segkit's own verbs do; the peers run under the same, since torch reads it once a process.
    settle_waiting()
    from benchmarks import machine  # only now: it imports torch

    os.environ.setdefault("MPLBACKEND", "agg")
    command = machine.command_line(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the workspace is removed then, too
    workspace = Path(tempfile.mkdtemp(prefix="segkit-bench-"))
    try:
        good = [_section(device, asked, workspace, command) for device in asked.devices]
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    return 0 if all(good) else 1


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Time segkit beside nnU-Net and MONAI.", allow_abbrev=False
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"what to time, by default all: {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="see that everything runs; the figures mean nothing")
    parser.add_argument("--data", type=Path, help=f"images in nnU-Net's raw layout; default ${DATA}, else the sample")
    parser.add_argument(
        "--devices", nargs="+", choices=("cpu", "cuda"), default=["cpu", "cuda"], help="sections to run, default both"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the reports")
    asked = parser.parse_args(arguments)
    if unknown := [name for name in asked.rows if name not in NAMES]:
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(NAMES)}")
    return asked


def _section(device: DeviceKind, asked: argparse.Namespace, workspace: Path, command: str) -> bool:
    """All rows on one kind of device; whether all that could be run was."""
    import torch

    from benchmarks import machine

    title = "GPU" if device == "cuda" else "CPU"
    if device == "cuda" and not torch.cuda.is_available():
        print("\nGPU section skipped: no CUDA device.\n", flush=True)
        return True
    bench = _bench(device, asked, workspace / device)
    warnings.filterwarnings("ignore")
    outcomes = [outcome for name in asked.rows or NAMES if (outcome := _run(name, bench)) is not None]
    torch.set_num_threads(bench.cores)  # as for every row that does not ask for one; the report says how many
    notes = []
    if bench.quick:
        notes.append("**A smoke run: everything was run once on little work, and the figures mean nothing.**")
    if device == "cpu" and not torch.cuda.is_available():
        notes.append("The GPU section was skipped: no CUDA device.")
    if bench.sample:
        notes.append(f"Data: the {_cases(bench.data)} hippocampi that ship with segkit, as no other data was named.")
    else:
        notes.append(f"Data: {bench.data.name}, {_cases(bench.data)} cases.")
    text = report.document(
        f"Benchmarks, {title}, {date.today().isoformat()}",
        machine.facts(command),
        outcomes,
        floors=GPU_FLOORS if device == "cuda" else FLOORS,
        notes=notes,
    )
    path = report.write(asked.results, f"{date.today().isoformat()}-{title.lower()}", text)
    print(f"\n{text}\nWritten to {path}.", flush=True)
    return not any(outcome.skipped for outcome in outcomes)


def _bench(device: DeviceKind, asked: argparse.Namespace, workspace: Path) -> Bench:
    from segkit.data.sample import sample_root

    workspace.mkdir()
    named = asked.data or os.environ.get(DATA)
    data = Path(named).expanduser().absolute() if named else sample_root()
    if not (data / "dataset.json").is_file() or not (data / "imagesTr").is_dir():
        raise SystemExit(f"{data} is not in nnU-Net's raw layout: no dataset.json and imagesTr in it")
    return Bench(device, data, named is None, workspace, asked.quick)


def _run(name: str, bench: Bench) -> Outcome | None:
    """One row; a failure is told, and kept for the report, so that the rows after it are still run."""
    import torch

    row = load(name)
    if bench.device not in row.devices:
        return None
    print(f"{name} ({bench.device}) ...", end=" ", file=sys.stderr, flush=True)
    started = time.monotonic()
    contenders = row.contenders(bench)
    torch.set_num_threads(row.threads or bench.cores)
    try:
        if row.before is not None:
            row.before(bench)
        runs = {}
        for who, contender in contenders.items():
            with quietly():
                runs[who] = apart(name, who, bench) if contender.apart else contender.build()
        quick_rounds = 1 if any(contender.apart for contender in contenders.values()) else 2
        rounds, warmup = bench.pick(row.rounds, quick_rounds), min(row.warmup, bench.pick(row.warmup, 1))
        measured = measure(runs, rounds=rounds, warmup=warmup)
    except Exception as error:  # whatever a peer raises
        traceback.print_exc()
        return Outcome(row, contenders, {}, time.monotonic() - started, skipped=f"failed: {error!r}"[:500])
    seconds = time.monotonic() - started
    print(f"{seconds:.0f} s", file=sys.stderr, flush=True)
    return Outcome(row, contenders, measured, seconds, warmup=warmup)


def _cases(data: Path) -> int:
    return sum(1 for path in (data / "labelsTr").iterdir() if not path.name.startswith("."))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

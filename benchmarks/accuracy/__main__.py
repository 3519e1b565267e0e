"""Accuracy by wall-clock time: `python -m benchmarks.accuracy --data DIR [--peers PYTHON]`, or `make bench-accuracy`.

Runs every contender, budget and seed one after the other and writes the report. A run whose table is kept is not run
again, so that the command can be interrupted and given again. Leave the machine alone meanwhile: segkit's time is
measured from outside, and so is the step of the peers, once.

    python -m benchmarks.accuracy --data DIR --only peer-same-chance --seed 0 --budget 5m      a single run
    python -m benchmarks.accuracy --data DIR --time                                   only time the peers' steps
    python -m benchmarks.accuracy --data DIR --report                                 only write the report

A peer's steps follow from its timing, so that, once that is kept, the peers may run on a machine that is not idle.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from benchmarks import machine
from benchmarks.accuracy.contenders import NAMES, Course, Run, budget_seconds, run_once, timing
from benchmarks.accuracy.figure import draw
from benchmarks.accuracy.results import document, points, versions
from segkit.configuration.thread_waiting import settle_waiting

ROOT = Path(__file__).resolve().parents[2]
DATA = "SEGKIT_BENCH_DATA"


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for, and write the report."""
    asked = _parse(arguments)
    # As segkit's own verbs do; the peers run under the same, since torch reads it once a process.
    settle_waiting()
    os.environ.setdefault("MPLBACKEND", "agg")
    course = _course(asked)
    if asked.time:
        for name in NAMES[1:]:
            found = timing(course, name)
            print(f"{name}: start-up {found['start_up']:.1f} s, {found['per_step']:.3f} s a step", flush=True)
        return 0
    if not asked.report:
        runs = [
            Run(name, budget, seed, asked.steps)
            for seed in asked.seed
            for budget in asked.budget
            for name in asked.only
        ]
        for run in runs:
            run_once(course, run)
    if points(course):
        _write(course, asked)
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, help=f"hippocampi in nnU-Net's raw layout with groups.csv; default ${DATA}"
    )
    parser.add_argument("--peers", default=sys.executable, help="interpreter with nnunetv2; default: this one")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), help="contenders")
    parser.add_argument("--budget", nargs="+", default=["5m", "10m"], help="times asked for")
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="a fixed number of steps instead of those that fill the time")
    parser.add_argument("--split", choices=("measure", "tune"), default="measure", help="whose test people are scored")
    parser.add_argument("--override", nargs="+", default=[], help="added to segkit's training command")
    parser.add_argument("--workspace", type=Path, default=ROOT / "runs" / "accuracy", help="runs and masks")
    parser.add_argument(
        "--results", type=Path, help="folder of the report; default benchmarks/results, tune: workspace"
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--time", action="store_true", help="only time the peers' steps, on idle cores")
    only.add_argument("--report", action="store_true", help="only write the report of what there is")
    asked = parser.parse_args(arguments)
    named = asked.data or os.environ.get(DATA)
    if not named or not (Path(named) / "groups.csv").is_file():
        parser.error(f"--data or ${DATA} must name a folder with imagesTr, labelsTr and groups.csv, got {named}")
    asked.data = Path(named)
    if asked.steps and asked.split == "measure" and "segkit" in asked.only:
        parser.error("--steps is for the peers: of segkit the time is measured")
    for budget in asked.budget:
        budget_seconds(budget)
    return asked


def _course(asked: argparse.Namespace) -> Course:
    workspace = (asked.workspace / asked.split).resolve()
    kept = ROOT / "benchmarks" / "results" if asked.split == "measure" else workspace / "results"
    asked.results = asked.results or kept
    return Course(
        data=asked.data,
        stage=asked.split,
        workspace=workspace,
        results=asked.results / "accuracy",
        peers=asked.peers,
        overrides=tuple(asked.override),
    )


def _write(course: Course, asked: argparse.Namespace) -> None:
    """The report and the figure."""
    measured = course.stage == "measure" and asked.results == ROOT / "benchmarks" / "results"
    figure = (
        ROOT / "docs" / "images" / "accuracy_by_minutes.png" if measured else asked.results / "accuracy_by_minutes.png"
    )
    day = date.today().isoformat()
    path: Path = asked.results / f"{day}-accuracy.md"
    facts = machine.facts("make bench-accuracy")
    here = [part for part in facts["versions"].split(", ") if not part.endswith("not installed")]
    facts |= {"versions": ", ".join(here), "versions of the peers": versions(course.peers)}
    draw(points(course), figure)
    path.write_text(document(course, facts, day=day, figure=os.path.relpath(figure, asked.results)))
    print(f"Written to {path} and {figure}.", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Dice + CE beside the instance-aware losses on pictures of nuclei: `python -m benchmarks.instance_losses --data DIR`.

    python -m benchmarks.instance_losses --data DIR                          everything that is not there yet
    python -m benchmarks.instance_losses --data DIR --only blob --seed 0     a single run
    python -m benchmarks.instance_losses --data DIR --report                 only write the report of what there is

Every loss gets the same schedule, plan, batches and seeds; nothing is tuned for any of them. The test pictures are
those of segkit's split, read by this measurement alone. Values are by picture: there is no knowing which pictures are
of one experiment, so the intervals are rather too narrow. A nucleus is found where one component of the mask overlaps
it by an IoU of at least one half. Nuclei that touch are one component of a mask, also of the truth's: the ceiling is
what the truth itself would score.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import facts
from benchmarks.process import run_python
from benchmarks.trainings import Values, compared, evaluate, read, write

ROOT = Path(__file__).parents[1]
REFERENCE = "dice_ce"
LOSSES = (REFERENCE, "blob", "blob_dice", "region_dice", "component_dice_ce")
METRICS = {"lesion_recall": "recall of nuclei", "lesion_f1": "F1 of nuclei", "dice": "Dice"}
EPOCHS = 6
MIN_IOU = 0.5
CASES = ROOT / "benchmarks" / "results" / "instance_losses"
REPORT = "instance-losses.md"

Table = dict[str, dict[str, float]]
"""By case and metric."""


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for and not there yet, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="pictures with instance ids in paired folders")
    parser.add_argument("--only", nargs="+", choices=LOSSES, default=list(LOSSES), help="losses")
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--workspace", type=Path, default=ROOT / "runs" / "instance_losses", help="runs")
    parser.add_argument("--report", action="store_true", help="only write the report of what there is")
    asked = parser.parse_args(arguments)
    for seed in () if asked.report else asked.seed:
        for loss in asked.only:
            if not _path(loss, seed).exists():
                _run(loss, seed, data=asked.data.resolve(), workspace=asked.workspace.resolve())
                print(f"{loss}, seed {seed}: done", flush=True)
    found = {
        loss: [_read(_path(loss, seed)) for seed in asked.seed if _path(loss, seed).exists()] for loss in asked.only
    }
    ceiling = json.loads((CASES / "ceiling.json").read_text())
    text = report({loss: tables for loss, tables in found.items() if tables}, ceiling)
    (CASES.parent / REPORT).write_text(text)
    print(text)
    return 0


def train_command(loss: str, seed: int, *, data: Path, workspace: Path) -> list[str]:
    """What is run for one loss and seed."""
    return [
        *("-m", "segkit.train", f"data.root={data}", "data.labels=instances", f"loss={loss}", f"seed={seed}"),
        *(f"trainer.max_epochs={EPOCHS}", f"validation.every_n_epochs={EPOCHS}", "overlays.cases=0", "tracking=none"),
        *(f"paths.runs={workspace}", f"run_name={loss}-s{seed}"),
    ]


def _run(loss: str, seed: int, *, data: Path, workspace: Path) -> None:
    folder = workspace / f"{loss}-s{seed}"
    run_python(train_command(loss, seed, data=data, workspace=workspace))
    scored = evaluate(folder, f"lesion.min_iou={MIN_IOU}")
    summary = json.loads((scored / "summary.json").read_text())
    CASES.mkdir(parents=True, exist_ok=True)
    (CASES / "ceiling.json").write_text(json.dumps(_ceiling(summary), indent=2) + "\n")
    write(_path(loss, seed), read(scored / "per_case.csv"), ["case_id", *METRICS])


def _ceiling(summary: Mapping[str, Any]) -> Any:  # noqa: ANN401  as JSON holds it
    """The part of an evaluation's summary that says what the reference scores against itself."""
    (one,) = summary["lesions"].values()
    return one["ceiling"]


def _path(loss: str, seed: int) -> Path:
    return CASES / f"{loss}-s{seed}.csv"


def _read(path: Path) -> Table:
    return {row["case_id"]: {metric: float(row[metric] or "nan") for metric in METRICS} for row in read(path)}


def report(tables: Mapping[str, Sequence[Table]], ceiling: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: means with intervals, their spread over seeds, and the difference to Dice + CE.

    Args:
        tables: By loss, one table a seed.
        ceiling: F1 of the reference against itself, see the module.
    """
    cases = sorted(next(iter(tables.values()))[0])
    lines = [
        "# Dice + CE beside the instance-aware losses, on nuclei",
        "",
        *(f"- {name}: {value}" for name, value in facts("python -m benchmarks.instance_losses --data=nuclei").items()),
        "",
        f"{len(cases)} test pictures, {EPOCHS} epochs each. A nucleus is found from an IoU of {MIN_IOU} on. Means by",
        "picture, seeds averaged, with a 95 % interval; then the means of the seeds. Differences are to Dice + CE on",
        "the same pictures; from three seeds on their intervals take pictures and seeds as drawn, else pictures alone.",
        "",
        f"Ceiling, the F1 of the truth once it is one class and is split into components: {_ceiling_text(ceiling)}.",
    ]
    for metric, title in METRICS.items():
        lines += ["", f"## {title}", "", "| loss | mean | seeds | difference to Dice + CE |", "|---|---|---|---|"]
        values = {loss: _stack(found, metric, cases) for loss, found in tables.items()}
        for loss, cells in compared(values, cases, reference=REFERENCE):
            lines.append(f"| {loss} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _ceiling_text(ceiling: Mapping[str, Mapping[str, Any]]) -> str:
    low, high = ceiling["f1"]["interval"]
    return f"{ceiling['f1']['mean']:.4f} [{low:.4f}, {high:.4f}]"


def _stack(tables: Sequence[Table], metric: str, cases: Sequence[str]) -> Values:
    return np.array([[[table[case][metric]] for case in cases] for table in tables])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

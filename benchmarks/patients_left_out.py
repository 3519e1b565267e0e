"""Dice + CE beside the instance-aware losses on brains with lesions, each patient left out once.

    python -m benchmarks.patients_left_out --data DIR               everything that is not there yet, and the report
    python -m benchmarks.patients_left_out --data DIR --report      only write the report of what there is

For a handful of patients: every number is printed by patient, and no mean of them. They show what a loss does to
lesions in three dimensions; which loss is better they cannot show. A lesion is found from an IoU of 0.1 on, segkit's
default.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.instance_losses import LOSSES, ROOT
from benchmarks.machine import facts
from benchmarks.process import run_python
from benchmarks.trainings import evaluate, read, write

PATIENTS = 3
EPOCHS = 4
METRICS = {
    "lesion_recall": "recall of lesions",
    "lesion_precision": "precision of lesions",
    "lesion_f1": "F1 of lesions",
    "dice": "Dice",
}
TABLE = ROOT / "benchmarks" / "results" / "patients_left_out.csv"
REPORT = "patients-left-out.md"

Row = Mapping[str, str]


def main(arguments: Sequence[str]) -> int:
    """Run what is not there yet, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help=f"{PATIENTS} patients in nnU-Net's raw layout")
    parser.add_argument("--workspace", type=Path, default=ROOT / "runs" / "patients_left_out", help="runs")
    parser.add_argument("--report", action="store_true", help="only write the report of what there is")
    asked = parser.parse_args(arguments)
    rows: list[Row] = [*read(TABLE)]
    for loss in () if asked.report else LOSSES:
        for fold in range(PATIENTS):
            if not any((row["loss"], row["fold"]) == (loss, str(fold)) for row in rows):
                rows += _run(loss, fold, data=asked.data.resolve(), workspace=asked.workspace.resolve())
                write(TABLE, rows, ["loss", "fold", "case_id", *METRICS])
                print(f"{loss}, patient {fold + 1} of {PATIENTS} left out: done", flush=True)
    text = report(rows)
    (TABLE.parent / REPORT).write_text(text)
    print(text)
    return 0


def train_command(loss: str, fold: int, *, data: Path, workspace: Path) -> list[str]:
    """What is run for one loss and patient; nobody is left to select by, so the last checkpoint is taken."""
    return [
        *("-m", "segkit.train", f"data.root={data}", f"loss={loss}", "data.split.tuning=0"),
        *(f"data.split.folds={PATIENTS}", f"data.split.fold={fold}", f"trainer.max_epochs={EPOCHS}"),
        *("overlays.cases=0", "tracking=none", f"paths.runs={workspace}", f"run_name={loss}-{fold}"),
    ]


def _run(loss: str, fold: int, *, data: Path, workspace: Path) -> list[Row]:
    folder = workspace / f"{loss}-{fold}"
    run_python(train_command(loss, fold, data=data, workspace=workspace))
    scored = read(evaluate(folder, "overlays=0") / "per_case.csv")
    return [{**row, "loss": loss, "fold": str(fold)} for row in scored]


def report(rows: Sequence[Row]) -> str:
    """Markdown: for each metric a table of losses by patients."""
    patients = sorted({row["case_id"] for row in rows})
    lines = [
        "# Dice + CE beside the instance-aware losses, each patient left out once",
        "",
        *(f"- {name}: {value}" for name, value in facts("python -m benchmarks.patients_left_out --data=DIR").items()),
        "",
        f"{len(patients)} patients, {EPOCHS} epochs on the others, one seed. So few people support no mean, no",
        "interval and no claim: these are the numbers, and that is all.",
    ]
    for metric, title in METRICS.items():
        lines += ["", f"## {title}", "", f"| loss | {' | '.join(patients)} |", "|---" * (len(patients) + 1) + "|"]
        for loss in LOSSES:
            found = {row["case_id"]: row[metric] for row in rows if row["loss"] == loss}
            cells = [f"{float(found[case]):.3f}" if found.get(case) else "n/a" for case in patients]
            lines.append(f"| {loss} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

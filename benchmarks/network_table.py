"""Every network on the hippocampi at equal budget: `python -m benchmarks.network_table --data DIR`.

    python -m benchmarks.network_table --data DIR                             everything that is not there yet
    python -m benchmarks.network_table --data DIR --only unet --seed 0        a single run
    python -m benchmarks.network_table --data DIR --report                    only write the report of what there is

The same number of steps, plan, schedule, batches and seeds for all; nothing is tuned for any of them, and the plan is
small: the table shows that each learns and what it costs, not what each could reach. The last weights are scored, so
nobody is needed to select by. Tested are the people of part 2 of the four that `benchmarks/accuracy/split.py` deals,
who are read by this measurement alone; the people of part 0, who are measured there, have no role here.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import segkit
from benchmarks.accuracy.split import FOLDS, MEASURED, cases_of
from benchmarks.machine import facts
from benchmarks.process import run_python
from benchmarks.report import table
from benchmarks.topology import NETWORKS
from benchmarks.trainings import Values, compared, evaluate, read, write
from segkit.data.splits import assign_roles
from segkit.runs.files import write_json
from segkit.types import Case

ROOT = Path(__file__).parents[1]
REFERENCE = "unet"
STEPS = 200
PLAN = ("plan=tiny", "plan.patch_size=[32,32,32]", "plan.batch_size=2", "plan.features=[16,32,64]")
"""Every network takes 32 voxels without padding."""
TESTED = 2
TABLES = ROOT / "benchmarks" / "results" / "networks"
REPORT = "networks.md"

Row = Mapping[str, str]
"""Of a case and class: network and seed, what the training cost, Dice."""
COLUMNS = ("case_id", "group", "class", "dice", "parameters", "minutes")


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for and not there yet, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the hippocampi in nnU-Net's raw layout, groups.csv")
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="networks")
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--workspace", type=Path, default=ROOT / "runs" / "network_table", help="runs")
    parser.add_argument("--results", type=Path, default=TABLES, help="tables by case; the report goes beside them")
    parser.add_argument(
        "--steps", type=int, default=STEPS, help="of each training; others than the default mean nothing"
    )
    parser.add_argument("--report", action="store_true", help="only write the report of what there is")
    asked = parser.parse_args(arguments)
    missing = [
        (network, seed) for seed in asked.seed for network in asked.only if not _path(asked, network, seed).exists()
    ]
    if missing and not asked.report:
        _measure(asked, missing)
    found = {network: [read(_path(asked, network, seed)) for seed in asked.seed] for network in asked.only}
    tables = {network: [rows for rows in seeds if rows] for network, seeds in found.items() if any(seeds)}
    text = report(tables, steps=asked.steps)
    (asked.results.parent / REPORT).write_text(text)
    print(text)
    return 0


def roles(cases: Sequence[Case]) -> dict[str, list[str]]:
    """Who is trained on and who is tested; the people that `benchmarks.accuracy` measures are in neither."""
    hidden = set(assign_roles(cases, folds=FOLDS, fold=MEASURED).test)
    dealt = assign_roles(cases, folds=FOLDS, fold=TESTED, tuning=0)
    return {"train": [case for case in dealt.train if case not in hidden], "tuning": [], "test": list(dealt.test)}


def data_words(*, data: Path, workspace: Path) -> list[str]:
    """What preparing and training are told of data and plan."""
    return [f"data.root={data}", f"data.split.file={workspace / 'split.json'}", f"paths.runs={workspace}", *PLAN]


def train_command(network: str, seed: int, *, data: Path, workspace: Path, steps: int = STEPS) -> list[str]:
    """What is run for one network and seed."""
    return [
        *("-m", "segkit.train", *data_words(data=data, workspace=workspace), f"network={network}", f"seed={seed}"),
        *(f"trainer.max_steps={steps}", "overlays.cases=0", "tracking=none", f"run_name={network}-s{seed}"),
    ]


def _measure(asked: argparse.Namespace, missing: Sequence[tuple[str, int]]) -> None:
    data, workspace = asked.data.resolve(), asked.workspace.resolve()
    workspace.mkdir(parents=True, exist_ok=True)
    write_json(workspace / "split.json", roles(cases_of(data / "groups.csv")))
    run_python(["-m", "segkit.prepare", *data_words(data=data, workspace=workspace)])
    for network, seed in missing:
        started = time.monotonic()
        run_python(train_command(network, seed, data=data, workspace=workspace, steps=asked.steps))
        minutes = (time.monotonic() - started) / 60
        folder = workspace / f"{network}-s{seed}"
        weights = segkit.load(folder).predictor.network.parameters()
        cost = {"parameters": sum(each.numel() for each in weights), "minutes": round(minutes, 3)}
        scored = read(evaluate(folder, "overlays=0") / "per_case.csv")
        write(_path(asked, network, seed), [{**row, **cost} for row in scored], COLUMNS)
        print(f"{network}, seed {seed}: {minutes:.1f} minutes", flush=True)


def _path(asked: argparse.Namespace, network: str, seed: int) -> Path:
    path: Path = asked.results / f"{network}-s{seed}.csv"
    return path


def report(tables: Mapping[str, Sequence[Sequence[Row]]], *, steps: int = STEPS) -> str:
    """Markdown: what each network cost and reached.

    Args:
        tables: By network, the rows of each seed.
        steps: Of each training.
    """
    first = next(iter(tables.values()))[0]
    people = {row["case_id"]: row["group"] for row in first}
    cases, classes = sorted(people), sorted({row["class"] for row in first})
    groups = [people[case] for case in cases]
    values = {network: np.stack([_values(rows, cases, classes) for rows in found]) for network, found in tables.items()}
    lines = [["network", "parameters", "minutes", "Dice [95 % interval]", "seeds", "difference to unet"]]
    for network, cells in compared(values, groups, reference=REFERENCE):
        rows = [seed[0] for seed in tables[network]]
        minutes = ", ".join(f"{float(row['minutes']):.1f}" for row in rows)
        lines.append([network, f"{int(rows[0]['parameters']) / 1e6:.2f} M", minutes, *cells])
    command = "python -m benchmarks.network_table --data=Dataset004_Hippocampus"
    head = [
        "# Every network on the hippocampi at equal budget",
        "",
        *(f"- {name}: {value}" for name, value in facts(command).items()),
        f"- plan: `{' '.join(PLAN)}`",
        "",
        f"{steps} steps each with the same plan, schedule and batches; nothing is tuned for any network. The plan is",
        "small: the table shows that each learns and what it costs, not what each could reach. Networks whose width or",
        "depth is their own take of the plan what they take (docs/networks.md), so parameters differ.",
        "",
        f"{len(cases)} test cases of {len(set(groups))} people, read by this measurement alone. Dice is the mean over",
        f"{' and '.join(classes)}, then over cases; seeds are averaged, intervals count people. Beside it the means of",
        "the seeds. Differences are paired; from three seeds on their intervals take people and seeds as drawn, else",
        "people alone, and they are not adjusted for their number. Minutes are those of `segkit.train` from start to",
        "end, by seed, the cases prepared before.",
        "",
    ]
    return "\n".join([*head, table(lines)]) + "\n"


def _values(rows: Sequence[Row], cases: Sequence[str], classes: Sequence[str]) -> Values:
    found = {(row["case_id"], row["class"]): float(row["dice"] or "nan") for row in rows}
    return np.array([[found[case, label] for label in classes] for case in cases])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`evaluate run=SWEEP`: every run of a cross-validation on its own cases, and all of them together.

The folds of `train --multirun data.split.fold=0,1,2,3,4 run_name=SWEEP` lie below one folder. Each is scored on the
cases that it has not seen; the tables of the folds together are the out-of-fold table: one line a case of the data set.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segkit.errors import DataError, UsageError
from segkit.evaluation import Summary
from segkit.runs.leftovers import sweep_abandoned
from segkit.runs.sweep import SweepDirectory
from segkit.workflows.evaluate_postprocessing import (
    FIT,
    OUT_OF_FOLD,
    asked_for,
    fit_scored,
    require_rules_of_each,
)
from segkit.workflows.evaluate_run import evaluate_run
from segkit.workflows.evaluate_subset import Evaluated
from segkit.workflows.evaluate_variants import Row, forget_comparisons, write_variant
from segkit.workflows.evaluation_tables import numbers_of, write_cases, write_numbers
from segkit.workflows.members import require_alike
from segkit.workflows.presenting import present
from segkit.workflows.provenance import SEEN


def evaluate_folds(config: Mapping[str, Any], runs: Sequence[Path]) -> Summary:
    """Score each run on its own cases, then all cases together.

    Args:
        config: Keys of configs/evaluate.yaml.
        runs: Folders of the runs, below one folder.

    Returns:
        The numbers of all cases, which are also printed and written to <folder>/evaluation/<subset>.

    Raises:
        UsageError: The runs mean different things, or are scored in different ways; `subset` is not `test`; a run
            has no rules to try.
        DataError: A case belongs to two runs; too few cases to fit rules on.
    """
    if config["subset"] != "test":
        raise UsageError(
            "only the test cases of each fold can be put together",
            where=f"subset={config['subset']}",
            why="the other roles share cases between folds",
            mend="subset=test; subset=held_out, which scores the mean of the folds; or evaluate one run",
        )
    require_rules_of_each(config, runs)
    sweep = SweepDirectory(runs[0].parent)
    output = Path(config.get("output") or sweep.evaluation / "test").expanduser().absolute()
    folds = []
    for run in runs:
        own = None if config.get("output") is None else output / run.name
        folds.append(evaluate_run({**config, "output": own}, run))
        present(run, trust=config.get("trust", False))
        print()
    _require_one_experiment(folds)
    plain, *others = (_pooled(rows) for rows in zip(*(fold.rows for fold in folds), strict=True))
    numbers = plain.numbers
    seen = sorted({case for fold in folds for case in fold.facts["seen_cases"]})
    label = SEEN if seen else "out of fold"
    output.mkdir(parents=True, exist_ok=True)
    sweep_abandoned(output)
    forget_comparisons(output)
    write_cases(output, numbers, note=label if seen else "")
    facts = {"label": label, "runs": [fold.facts["run"] for fold in folds], "subset": "test", "seen_cases": seen}
    write_numbers(output, numbers, facts=facts)
    print(
        f"{sweep.name}, {label}: {len(folds)} runs, {numbers.summary.n_cases} cases, {numbers.summary.n_groups} groups"
    )
    for line in (*numbers.lines(), *(write_variant(output, row, facts=facts) for row in others)):
        print(line)
    print(output)
    if asked_for(config) == FIT:
        regions = [table for fold in folds for table in fold.regions]
        average = folds[0].members.average
        fit_scored([fold.trained for fold in folds], regions, average=average, cases_are=OUT_OF_FOLD, output=sweep.path)
    present(sweep.path, trust=config.get("trust", False))
    return numbers.summary


def _pooled(rows: Sequence[Row]) -> Row:
    """One row of every fold, as if one model had made them all."""
    first = rows[0]
    numbers = numbers_of(
        [result for row in rows for result in row.numbers.results],
        [detail for row in rows for detail in row.numbers.details],
        first.numbers.labels,
        settings=first.numbers.summary.settings,
        detail=None if first.numbers.detail is None else first.numbers.detail.settings,
        unit=first.numbers.summary.unit,
        dimensions=first.numbers.summary.dimensions,
        files={case: pair for row in rows for case, pair in row.numbers.files.items()},
    )
    return Row(first.name, numbers, _shared(rows), tuple(case for row in rows for case in row.seen))


def _shared(rows: Sequence[Row]) -> dict[str, Any]:
    """What the folds say of a row: once where all say the same, else in the order of the runs."""
    said = {key: [row.facts[key] for row in rows] for key in rows[0].facts}
    return {key: values[0] if all(value == values[0] for value in values) else values for key, values in said.items()}


def _require_one_experiment(folds: Sequence[Evaluated]) -> None:
    """Refuse to put together what was not scored alike, or a case that two models were tested on.

    Raises:
        UsageError: Labels or settings differ.
        DataError: A case is in two runs.
    """
    require_alike(
        [fold.trained for fold in folds],
        {"labels": lambda run: run.plan.labels, "scores": lambda run: run.settings},
        so="they are no folds of one experiment",
        mend="put the folds of one experiment, and nothing else, into one folder",
    )
    tested = dict[str, str]()
    for fold in folds:
        for result in fold.numbers.results:
            other_run = tested.setdefault(result.case_id, fold.trained.directory.name)
            if other_run != fold.trained.directory.name:
                raise DataError(
                    "a case is a test case of two runs",
                    where=f"case {result.case_id}",
                    why=f"{other_run} and {fold.trained.directory.name}",
                    mend="they are no folds of one split: evaluate them one by one",
                )

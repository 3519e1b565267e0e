"""What tables of trainings have in common: one is run and scored, the values of the test cases become a line."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks.process import run_python
from segkit.metrics.paired_comparison import paired_difference
from segkit.metrics.uncertainty import Interval, macro_interval

Values: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
"""Of one metric: (S, N, K), seeds by cases by classes; NaN where a case has no value."""


def evaluate(folder: Path, *words: str) -> Path:
    """Score a run on its test cases; returns the folder of the tables."""
    run_python(["-m", "segkit.evaluate", f"run={folder}", "subset=test", *words])
    return folder / "evaluation" / "test"


def read(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV file; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> None:
    """A CSV file of these columns of the rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def compared(values: Mapping[str, Values], groups: Sequence[str], *, reference: str) -> Iterator[tuple[str, list[str]]]:
    """Each name with what is told of it: mean with interval, means of the seeds, difference to the reference.

    Args:
        values: By name, over the same cases and classes.
        groups: Group (person) of each case.
        reference: The one that the others are compared with; no difference is told where it is missing.
    """
    for name, table in values.items():
        mean = macro_interval(table.mean(axis=0), groups)
        seeds = ", ".join(f"{macro_interval(one, groups).mean:.4f}" for one in table)
        difference = ""
        if name != reference and reference in values:
            found = paired_difference(values[reference], table, groups).interval
            difference = _bracketed(found, sign="+")
        yield name, [f"{_bracketed(mean)} n={mean.n}", seeds, difference]


def _bracketed(interval: Interval, *, sign: str = "") -> str:
    return f"{interval.mean:{sign}.4f} [{interval.low:{sign}.4f}, {interval.high:{sign}.4f}]"

"""The tables of an evaluation, read back: what `evaluation.files` wrote, understood or refused by name."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from segkit.errors import DataError, UsageError
from segkit.runs.files import read_json
from segkit.runs.locate import name_fault
from segkit.runs.untrusted import read_regular

PER_CASE, SUMMARY = "per_case.csv", "summary.json"
MAX_TABLE_BYTES = 2**26
"""A hundred thousand cases of several classes."""
_NAMES = ("case_id", "group", "class")


@dataclass(frozen=True)
class StoredTable:
    """One evaluation: what was counted by case and class, and what stands beside it.

    Args:
        folder: Where it lies.
        facts: summary.json.
        groups: Group (person) of each case, by case id, sorted.
        classes: Foreground classes, in the order of the file.
        rows: The cells of each case and class by the name of their column, as text.
    """

    folder: Path
    facts: Mapping[str, Any]
    groups: Mapping[str, str]
    classes: tuple[str, ...]
    rows: Mapping[tuple[str, str], Mapping[str, str]]

    @property
    def cases(self) -> tuple[str, ...]:
        """Case ids, sorted."""
        return tuple(self.groups)

    @property
    def run(self) -> str:
        """Name of the run that was evaluated; of the folder where none is known."""
        named = str(self.facts.get("run") or "")
        return self.folder.name if name_fault(named) else named

    @property
    def rules(self) -> Mapping[str, Any]:
        """How values were made and what is undefined, by topic."""
        rules = self.facts.get("rules")
        return rules if isinstance(rules, Mapping) else {}

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(next(iter(self.rows.values())))

    def values(self, column: str, classes: Sequence[str]) -> Float[np.ndarray, "N K"]:
        """Numbers of a column, cases by id, classes as asked for; NaN where a cell is empty.

        Raises:
            DataError: There is no such column, or a cell is no number.
        """
        if column not in self.columns:
            numbers = ", ".join(name for name in self.columns if name not in (*_NAMES, "note"))
            mend = "metrics=[<one of these>]; or evaluate again, with a version and settings that write it"
            what = f"the table has no column {column}"
            raise DataError(what, where=str(self.folder / PER_CASE), why=f"it has {numbers}", mend=mend)
        return np.asarray([[self._number(case, name, column) for name in classes] for case in self.cases], dtype=float)

    def _number(self, case: str, class_name: str, column: str) -> float:
        cell = self.rows[case, class_name][column].strip()
        try:
            return float(cell) if cell else math.nan
        except ValueError as error:
            where = f"{self.folder / PER_CASE}, case {case}, class {class_name}, column {column}"
            raise _malformed("a cell of the table is no number", where, f"it is {cell[:80]!r}") from error


def read_table(folder: Path) -> StoredTable:
    """Read per_case.csv and summary.json of one folder.

    Raises:
        UsageError: They are not both there.
        DataError: They cannot be understood.
    """
    lacking = [name for name in (PER_CASE, SUMMARY) if not (folder / name).is_file()]
    if lacking:
        raise UsageError(
            "there is no finished evaluation",
            where=str(folder),
            why=f"no {' and no '.join(lacking)} in it",
            mend="python -m segkit.evaluate, which writes both; one that was interrupted leaves no summary.json",
        )
    path = folder / PER_CASE
    try:
        facts = read_json(folder / SUMMARY)
        text = read_regular(path, limit=MAX_TABLE_BYTES).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        lines = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise _malformed("the tables of an evaluation cannot be read", str(folder), str(error)) from error
    header = reader.fieldnames or ()
    if absent := [name for name in _NAMES if name not in header]:
        why = f"no column {', '.join(absent)} in its first line '{','.join(header)[:200]}'"
        raise _malformed("the table has no names of cases", str(path), why)
    rows: dict[tuple[str, str], Mapping[str, str]] = {}
    for number, line in enumerate(lines, start=2):
        if None in line or None in line.values():
            raise _malformed("a line of the table is not whole", f"{path}, line {number}", "other cells than columns")
        key = (line["case_id"], line["class"])
        if key in rows:
            why = f"case {key[0]}, class {key[1]}"
            raise _malformed("a case has two lines of one class", f"{path}, line {number}", why)
        rows[key] = line
    groups, classes = _names(rows, path)
    return StoredTable(folder, facts, groups, classes, rows)


def _names(rows: Mapping[tuple[str, str], Mapping[str, str]], path: Path) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """Group of each case, and the classes; every case must have each of them.

    Raises:
        DataError: It has not, or is in two groups; or there is no case.
    """
    classes = tuple(dict.fromkeys(name for _, name in rows))
    groups = {case: rows[case, name]["group"] for case, name in sorted(rows)}
    if not rows:
        raise _malformed("the table holds no case", str(path), "only a first line")
    for case in groups:
        of_case = [rows[case, name]["group"] for name in classes if (case, name) in rows]
        if len(of_case) < len(classes):
            lacking = next(name for name in classes if (case, name) not in rows)
            raise _malformed("a case lacks a class", f"{path}, case {case}", f"no line of class {lacking}")
        if len(set(of_case)) > 1:
            raise _malformed("a case is in two groups", f"{path}, case {case}", " and ".join(sorted(set(of_case))))
    return groups, classes


def _malformed(what: str, where: str, why: str) -> DataError:
    return DataError(what, where=where, why=why, mend="evaluate again: `evaluate` writes these tables whole")

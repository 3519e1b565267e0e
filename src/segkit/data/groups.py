"""Which cases belong to one person and must stay in one role."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from segkit.errors import DataError, UsageError
from segkit.runs.untrusted import read_regular
from segkit.types import Case

MAX_TABLE_BYTES = 2**26
"""A line each for a million cases."""
_PATTERN = "regex:"
_NAMED = 5


def with_groups(cases: Sequence[Case], groups: str | Path | None, *, root: Path) -> tuple[Case, ...]:
    """Give every case its group.

    Args:
        cases: Cases whose groups are not known yet.
        groups: A CSV file with the columns `case,group`; or `regex:PATTERN`, which must match each whole case id
            and whose one parenthesis is the group; or None: `groups.csv` beside the data if it is there, else every
            case is a group of its own.
        root: Folder of the data set; a relative CSV path is looked for there when it is not in the working folder.

    Raises:
        DataError: The table is malformed or leaves cases out; the pattern does not match every case.
        UsageError: The pattern is no regular expression with exactly one group; the table is not there.
    """
    if groups is None and not (root / "groups.csv").is_file():
        return tuple(cases)
    if isinstance(groups, str) and groups.startswith(_PATTERN):
        found = _from_pattern(cases, groups.removeprefix(_PATTERN))
    else:
        found = _from_table(cases, _table(groups, root))
    return tuple(replace(case, group=found[case.case_id]) for case in cases)


def groups_are_known(cases: Sequence[Case]) -> bool:
    """Whether somebody said who belongs together: some group is not just the case's own id."""
    return any(case.group != case.case_id for case in cases)


def _table(groups: str | Path | None, root: Path) -> Path:
    if groups is None:
        return root / "groups.csv"
    for path in (Path(groups).expanduser(), root / groups):
        if path.is_file():
            return path.absolute()
    raise UsageError(
        "the table of groups is not there",
        where="data.groups",
        why=f"no file {groups}, neither here nor in {root}",
        mend="name a CSV file with the columns case,group or regex:PATTERN",
    )


def _from_table(cases: Sequence[Case], path: Path) -> dict[str, str]:
    try:
        text = read_regular(path, limit=MAX_TABLE_BYTES).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        columns = [name.strip() for name in reader.fieldnames or ()]
        rows = [{key.strip(): (value or "").strip() for key, value in row.items() if key} for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            "the table of groups cannot be read",
            where=str(path),
            why=str(error),
            mend="save it as plain text: CSV in UTF-8 with the columns case,group",
        ) from error
    if not {"case", "group"} <= set(columns):
        raise DataError(
            "the table of groups lacks a column",
            where=str(path),
            why=f"its first line is '{','.join(columns)}'",
            mend="let its first line be 'case,group'",
        )
    found: dict[str, str] = {}
    for row in rows:
        if found.setdefault(row["case"], row["group"]) != row["group"]:
            raise DataError(
                "a case is in two groups",
                where=f"case {row['case']}, {path}",
                why=f"'{found[row['case']]}' and '{row['group']}'",
                mend="keep one line a case",
            )
    missing = [case.case_id for case in cases if not found.get(case.case_id)]
    if missing:
        raise DataError(
            f"the table of groups leaves out {len(missing)} of {len(cases)} cases",
            where=str(path),
            why=f"no group for {_listed(missing)}",
            mend="add a line case,group for each",
        )
    return found


def _from_pattern(cases: Sequence[Case], pattern: str) -> dict[str, str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            "the pattern is no regular expression", where="data.groups", why=f"{pattern}: {error}"
        ) from error
    if compiled.groups != 1:
        raise UsageError(
            "the pattern needs exactly one group",
            where="data.groups",
            why=f"{pattern} has {compiled.groups}",
            mend=r"put parentheses round the part that names the person: 'regex:(.+)_\d+'",
        )
    matches = {case.case_id: compiled.fullmatch(case.case_id) for case in cases}
    missing = [case_id for case_id, match in matches.items() if match is None or not match.group(1)]
    if missing:
        raise DataError(
            f"the pattern does not match {len(missing)} of {len(cases)} case ids",
            where="data.groups",
            why=f"{pattern} does not match the whole of {_listed(missing)}",
            mend="widen the pattern, or name the groups in a CSV file",
        )
    return {case_id: match.group(1) for case_id, match in matches.items() if match is not None}


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more

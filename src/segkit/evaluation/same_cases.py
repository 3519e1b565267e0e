"""Whether evaluations may be compared: the same cases of the same people, the same truth, the same rules."""

from collections.abc import Sequence

import numpy as np

from segkit.errors import DataError
from segkit.evaluation.stored_table import PER_CASE, StoredTable

_NAMED = 3
_OF_THE_SUMMARY = ("interval", "mean")
"""Rules of how values are summed up, which a comparison does by itself."""


def require_same_cases(tables: Sequence[StoredTable]) -> None:
    """Refuse evaluations of different test sets, people, classes, labels or rules.

    Args:
        tables: Two or more; each is held against the first.

    Raises:
        DataError: Naming both tables and what differs.
    """
    first = tables[0]
    for other in tables[1:]:
        _same_cases(first, other)
        _same_classes(first, other)
        _same_people(first, other)
        _same_truth(first, other)
        _same_rules(first, other)


def inference_notes(tables: Sequence[StoredTable]) -> list[str]:
    """What differs in the way to the prediction: part of what is compared, and therefore told and not refused."""
    notes = []
    for key, meaning in (("step", "distance of tiles"), ("mirror_axes", "axes mirrored and averaged over")):
        found = [(table.run, _setting(table, key)) for table in tables]
        if len({value for _, value in found}) > 1:
            notes.append(f"{meaning} differ: " + ", ".join(f"{run} {value}" for run, value in found))
    return notes


def _same_cases(a: StoredTable, b: StoredTable) -> None:
    only = _only_in(a, b)
    if any(cases for _, cases in only):
        raise DataError(
            "the evaluations are of different test sets",
            where=_both(a, b),
            why="; ".join(f"only in {name}: {_listed(cases)}" for name, cases in only if cases),
            mend="evaluate both on the same cases: the same data.split, or a split of your own (data.split.file)",
        )


def _only_in(a: StoredTable, b: StoredTable) -> list[tuple[str, list[str]]]:
    """Cases that only one of the two has, by its folder: two runs may have one name."""
    return [(str(one.folder), sorted(set(one.cases) - set(other.cases))) for one, other in ((a, b), (b, a))]


def _same_classes(a: StoredTable, b: StoredTable) -> None:
    if set(a.classes) != set(b.classes):
        why = f"{', '.join(a.classes)} and {', '.join(b.classes)}"
        mend = "compare models of the same labels"
        raise DataError("the evaluations are of different classes", where=_both(a, b), why=why, mend=mend)


def _same_people(a: StoredTable, b: StoredTable) -> None:
    other = [case for case in a.cases if a.groups[case] != b.groups[case]]
    if other:
        raise DataError(
            "a case belongs to different people (groups)",
            where=f"case {other[0]}; {_both(a, b)}",
            why=f"'{a.groups[other[0]]}' and '{b.groups[other[0]]}'; {len(other)} cases differ",
            mend="evaluate both with the same data.groups",
        )


def _same_truth(a: StoredTable, b: StoredTable) -> None:
    """The number of voxels of each reference: two masks of one size that are not the same are not told apart."""
    sizes_a, sizes_b = (table.values("n_reference", a.classes) for table in (a, b))
    differ = np.argwhere(~((sizes_a == sizes_b) | (np.isnan(sizes_a) & np.isnan(sizes_b))))
    if len(differ):
        case, index = differ[0]
        raise DataError(
            "the evaluations used different labels",
            where=f"case {a.cases[case]}, class {a.classes[index]}; {_both(a, b)}",
            why=f"the reference has {sizes_a[case, index]:.0f} and {sizes_b[case, index]:.0f} voxels; "
            f"{len(np.unique(differ[:, 0]))} cases differ",
            mend="evaluate both again, against the same label files",
        )


def _same_rules(a: StoredTable, b: StoredTable) -> None:
    """Rules that both name must agree; a metric that only one has is refused where it is asked for."""
    topics = [t for t in a.rules if t in b.rules and t not in _OF_THE_SUMMARY and a.rules[t] != b.rules[t]]
    if topics:
        why = f"{topics[0]}: '{a.rules[topics[0]]}' and '{b.rules[topics[0]]}'"
        mend = "evaluate both again, with one version and the same settings"
        raise DataError("the evaluations followed different rules", where=_both(a, b), why=why, mend=mend)


def _setting(table: StoredTable, key: str) -> str:
    settings = table.facts.get("settings")
    return str(settings.get(key)) if isinstance(settings, dict) else "not known"


def _both(a: StoredTable, b: StoredTable) -> str:
    return f"{a.folder / PER_CASE} and {b.folder / PER_CASE}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} cases, {', '.join(names[:_NAMED])}{more}"

"""Which classes were annotated in which case: in a set put together from several sources rarely all of them.

    "annotated": {"patient_17": ["liver"], "patient_18": ["liver", "tumour"]}

in dataset.json, by case id, in the names of its `labels`. A case that is not named has every class annotated. Where a
class was not annotated, background says nothing of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segkit.data.names import shown_id
from segkit.errors import DataError
from segkit.types import Case, Labels

KEY = "annotated"
_EXAMPLE = '{"labels": {"background": 0, "liver": 1, "tumour": 2}, "annotated": {"patient_17": ["liver"]}}'
_NAMED = 5


def annotated_classes(
    declared: Mapping[str, Any], labels: Mapping[str, int] | None, root: Path
) -> dict[str, tuple[str, ...]]:
    """Case id to the foreground classes annotated there; empty where nothing is declared.

    Args:
        declared: What dataset.json says.
        labels: Class name to value, as declared there.
        root: Folder of the data set, for messages.

    Raises:
        DataError: It is no table of case ids and lists of names, names a class that is not declared, or names none.
    """
    named = declared.get(KEY)
    if named is None:
        return {}
    where = str(root / "dataset.json")
    if labels is None:
        why = "the names of the classes are not declared beside it"
        raise DataError("annotated classes without labels", where=where, why=why, mend=f"write it as {_EXAMPLE}")
    if not isinstance(named, dict) or not all(
        isinstance(names, list) and names and all(isinstance(name, str) for name in names) for names in named.values()
    ):
        raise DataError(
            "the annotated classes cannot be understood",
            where=where,
            why=f"{KEY} is {str(named)[:200]}",
            mend=f"write it as {_EXAMPLE}; a case in which nothing was annotated has no place in the data set",
        )
    known = _foreground(labels)
    for case_id, names in named.items():
        if unknown := sorted(set(names) - set(known)):
            raise DataError(
                "a class that is not declared is called annotated",
                where=f"case {shown_id(case_id)}, {where}",
                why=f"{KEY} names {', '.join(map(shown_id, unknown[:_NAMED]))}; labels has {', '.join(known)}",
                mend="use the names of labels",
            )
    return {case_id: tuple(name for name in known if name in names) for case_id, names in named.items()}


def with_annotated(cases: Sequence[Case], annotated: Mapping[str, tuple[str, ...]]) -> tuple[Case, ...]:
    """Give every case its annotated classes; all of them, None, where it is not named."""
    return tuple(replace(case, annotated=annotated.get(case.case_id)) for case in cases)


def partly_annotated(cases: Iterable[Case], labels: Mapping[str, int] | None) -> dict[str, tuple[str, ...]]:
    """Case id to the sorted names of the classes annotated there, for the cases that lack some of them.

    Args:
        cases: As declared.
        labels: Class name to value, as declared; None where nothing is.
    """
    everything = set(_foreground(labels or {}))
    return {
        case.case_id: tuple(sorted(case.annotated))
        for case in cases
        if case.annotated is not None and set(case.annotated) != everything
    }


def annotated_indices(case: Case, labels: Labels) -> frozenset[int] | None:
    """The annotated classes of a case as indices of a model's classes; None where all are.

    Names that the model does not know count for nothing: it was trained without these classes.
    """
    if case.annotated is None:
        return None
    found = frozenset(index for index, name in enumerate(labels.names) if index and name in case.annotated)
    return None if len(found) == labels.num_classes - 1 else found


def _foreground(labels: Mapping[str, int]) -> list[str]:
    """Names of the classes that can be annotated or not."""
    return [name for name, value in labels.items() if value != 0 and name.lower() != "ignore"]

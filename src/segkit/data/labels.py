"""What the integers in the label files mean, and the way from them to class indices and back."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Int

from segkit.data.cases import read_label
from segkit.data.layouts import Dataset
from segkit.errors import DataError
from segkit.types import Case, Labels

MAX_CLASSES = 256
"""More distinct values than this in undeclared labels are no classes but a grey picture or instances."""
_TABLE = 1 << 16
"""Values that lie within this range are looked up in a table: no sorting of voxels."""


def infer_labels(
    dataset: Dataset,
    cases: Sequence[Case],
    *,
    declared: Mapping[str, int] | None = None,
    kind: Literal["auto", "semantic", "instances"] = "auto",
    ignore: int | None = None,
) -> Labels:
    """Decide what the values in the labels are; files are opened only where nothing is declared.

    Undeclared values are instances when in every image they run 1..n without a gap, n differs from image to image
    and some image has more than one; else each value is a class. {0, 255} throughout is a mask.

    Args:
        dataset: For its declared labels and its name in messages.
        cases: The cases whose labels may be read: those of training and tuning.
        declared: Class name to value; None: as `dataset.declared_labels`.
        kind: "auto" by the rule above.
        ignore: Value of voxels that nobody annotated; None: as declared under the name `ignore`.

    Raises:
        DataError: Labels that cannot be read; declared values that contradict each other; values that are neither
            classes nor instances; no foreground in any case.
    """
    declared = dataset.declared_labels if declared is None else declared
    if declared is not None:
        return _from_declaration(declared, dataset, kind=kind, ignore=ignore)
    return labels_of_values(values_by_case(cases), where=str(dataset.root), kind=kind, ignore=ignore)


def values_by_case(cases: Sequence[Case]) -> dict[str, tuple[int, ...]]:
    """Distinct values of each label, sorted; reads the labels one after the other."""
    return {case.case_id: tuple(distinct(read_label(case)[0])) for case in cases}


def distinct(values: Int[np.ndarray, "*S"]) -> list[int]:
    """The distinct values of a label, sorted."""
    if values.size == 0 or (low := int(values.min())) + _TABLE <= int(values.max()):
        found: list[int] = np.unique(values).tolist()
        return found
    seen = np.zeros(int(values.max()) - low + 1, dtype=bool)
    seen[values - low if low else values] = True
    return [low + int(value) for value in np.flatnonzero(seen)]


def labels_of_values(
    values: Mapping[str, Sequence[int]],
    *,
    where: str = "",
    kind: Literal["auto", "semantic", "instances"] = "auto",
    ignore: int | None = None,
) -> Labels:
    """The rule of `infer_labels` on values that were already read.

    Args:
        values: Distinct values of each case's label.
        where: Data set, for messages.
        kind: See `infer_labels`.
        ignore: Value of voxels that nobody annotated.

    Raises:
        DataError: See `infer_labels`.
    """
    foreground = {case_id: sorted(set(found) - {0, ignore}) for case_id, found in values.items()}
    every = sorted(set().union(*foreground.values()))
    if not every:
        raise DataError(
            "no foreground in any case",
            where=where,
            why=f"{len(values)} labels hold nothing but background",
            mend="check that these are the labels, and that they were not saved as probabilities or cut off",
        )
    if every[0] < 0:
        case_id = next(case_id for case_id, found in foreground.items() if found and found[0] < 0)
        raise DataError(
            "a label holds negative values",
            where=f"case {case_id}",
            why=f"value {every[0]}",
            mend=f"data.ignore_label={every[0]} if these voxels were not annotated, else save the label again",
        )
    if kind == "instances" or (kind == "auto" and look_like_instances(foreground.values())):
        return Labels(("background", "object"), (0, 1), "instances", ignore)
    if len(every) > MAX_CLASSES - 1:
        raise DataError(
            "the labels hold too many values to be classes",
            where=where,
            why=f"{len(every)} distinct values, {every[0]} to {every[-1]}",
            mend="data.labels=instances if each value is an object; else save class numbers, not grey values",
        )
    names = ("foreground",) if len(every) == 1 else tuple(f"class_{value}" for value in every)
    return Labels(("background", *names), (0, *every), "semantic", ignore)


def look_like_instances(foreground: Iterable[Sequence[int]]) -> bool:
    """Whether the ids run 1..n in each image, n varies, and some image has more than one.

    Args:
        foreground: For each image its distinct values, sorted, without background.
    """
    ids = [list(found) for found in foreground]
    counts = {len(found) for found in ids if found}
    return max(counts, default=0) > 1 and len(counts) > 1 and all(f == list(range(1, len(f) + 1)) for f in ids)


def to_class_indices(values: Int[np.ndarray, "*S"], labels: Labels, *, where: str = "") -> Int[np.ndarray, "*S"]:
    """Values of a label file to class indices 0..K-1, and -1 where nobody annotated.

    Args:
        values: As `cases.read_label` gives them.
        labels: What they mean.
        where: Case and file, for messages.

    Returns:
        (*S) int16. Of instances: 1 where there is an object.

    Raises:
        DataError: A value that is not declared.
    """
    found = distinct(values)
    table = np.empty(len(found), dtype=np.int16)
    if unknown := undeclared(found, labels):
        raise DataError(
            "the label holds a value that is not declared",
            where=where,
            why=f"found {_listed(unknown)}; declared are {_declared(labels)}",
            mend="add the class to dataset.json, set data.ignore_label, or mend the label",
        )
    for k, value in enumerate(found):
        if value == labels.ignore_id:
            table[k] = -1
        elif labels.kind == "instances":
            table[k] = int(value > 0)
        else:
            table[k] = labels.ids.index(value)
    if not found or found[-1] - found[0] >= _TABLE:
        return np.asarray(table[np.searchsorted(np.asarray(found, dtype=values.dtype), values)])
    lookup = np.zeros(found[-1] - found[0] + 1, dtype=np.int16)
    lookup[np.asarray(found) - found[0]] = table
    return np.asarray(lookup[values - found[0] if found[0] else values])


def to_file_ids(indices: Int[np.ndarray, "*S"], labels: Labels) -> Int[np.ndarray, "*S"]:
    """Class indices to the values of the label files, int32; the inverse of `to_class_indices`."""
    table: np.ndarray = np.asarray(labels.ids, dtype=np.int32)
    return np.asarray(table[indices])


def undeclared(values: Sequence[int], labels: Labels) -> list[int]:
    """The values that `labels` does not explain."""
    if labels.kind == "instances":
        return [value for value in values if value < 0 and value != labels.ignore_id]
    return [value for value in values if value not in labels.ids and value != labels.ignore_id]


def _from_declaration(
    declared: Mapping[str, int], dataset: Dataset, *, kind: Literal["auto", "semantic", "instances"], ignore: int | None
) -> Labels:
    where = str(dataset.root / "dataset.json")
    named = {name: value for name, value in declared.items() if name.lower() != "ignore"}
    if ignore is None:
        ignore = next((value for name, value in declared.items() if name.lower() == "ignore"), None)
    named = {name: value for name, value in named.items() if value != ignore}
    if len(set(named.values())) != len(named):
        raise DataError(
            "two classes have one value",
            where=where,
            why=f"labels is {dict(declared)}",
            mend="give each class a value of its own",
        )
    if any(value < 0 for value in named.values()):
        raise DataError(
            "a class has a negative value",
            where=where,
            why=f"labels is {dict(declared)}",
            mend="name it 'ignore' if nobody annotated these voxels, else count classes from 0",
        )
    ordered = sorted(named.items(), key=lambda item: item[1])
    background = next((name for name, value in ordered if value == 0), "background")
    foreground = [(name, value) for name, value in ordered if value != 0]
    if not foreground:
        raise DataError(
            "no foreground is declared", where=where, why=f"labels is {dict(declared)}", mend="add a class: 'tumour': 1"
        )
    if kind == "instances":
        if len(foreground) > 1:
            raise DataError(
                "instances of several classes are not read",
                where=where,
                why=f"declared are {', '.join(name for name, _ in foreground)}",
                mend="declare one class, or data.labels=semantic",
            )
        return Labels((background, foreground[0][0]), (0, 1), "instances", ignore)
    return Labels(
        (background, *(name for name, _ in foreground)), (0, *(value for _, value in foreground)), "semantic", ignore
    )


def _declared(labels: Labels) -> str:
    if labels.kind == "instances":
        return "instances 1..n"
    return ", ".join(f"{name} {value}" for name, value in zip(labels.names, labels.ids, strict=True))


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:8])) + (f" and {len(values) - 8} more" if len(values) > 8 else "")

"""dataset.json: what a data set says of itself, each part of it judged before it is used: it is data from others."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segkit.data.names import outside, shown_id, twice
from segkit.errors import DataError
from segkit.runs.untrusted import MAX_JSON_BYTES, read_regular
from segkit.types import Case


def declaration(root: Path) -> dict[str, Any]:
    """What dataset.json says; empty where there is none.

    Raises:
        DataError: It is no JSON, or no table; a key is there twice.
    """
    path = root / "dataset.json"
    if not os.path.lexists(path):
        return {}
    try:
        declared = json.loads(read_regular(path, limit=MAX_JSON_BYTES), object_pairs_hook=_once)
    except OSError as error:
        raise DataError(
            "dataset.json cannot be read", where=str(path), why=str(error), mend="put the file itself there"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError("dataset.json is no JSON", where=str(path), why=str(error), mend="mend the line") from error
    if not isinstance(declared, dict):
        raise DataError(
            "dataset.json is no table",
            where=str(path),
            why=f"it holds a {type(declared).__name__}",
            mend='write it as {"channel_names": {...}, "labels": {...}}, or take it away',
        )
    return declared


def file_ending(declared: Mapping[str, Any], root: Path) -> str:
    """`file_ending`, or "".

    Raises:
        DataError: It is no ending.
    """
    ending = declared.get("file_ending") or ""
    if not isinstance(ending, str) or "/" in ending:
        raise DataError(
            "the file ending cannot be understood",
            where=str(root / "dataset.json"),
            why=f"file_ending is {str(ending)[:80]!r}",
            mend='write it as ".nii.gz"',
        )
    return ending


def channel_names(declared: Mapping[str, Any], root: Path) -> tuple[str, ...]:
    """Names of the channels by their number; () where none are declared.

    Raises:
        DataError: They are no table of numbers and names.
    """
    named = declared.get("channel_names") or declared.get("modality") or {}
    try:
        return tuple(str(named[key]) for key in sorted(named, key=int))
    except (TypeError, ValueError, LookupError) as error:
        raise DataError(
            "the channel names cannot be understood",
            where=str(root / "dataset.json"),
            why=f"channel_names is {str(named)[:200]}",
            mend='write it as {"0": "T1", "1": "FLAIR"}',
        ) from error


def label_values(declared: Mapping[str, Any], root: Path) -> dict[str, int] | None:
    """Class name to value; the Decathlon's inverse form, value to name, is turned round.

    Raises:
        DataError: They are no table of names and whole numbers.
    """
    labels = declared.get("labels")
    if not labels:
        return None
    try:
        if all(isinstance(value, str) and str(key).lstrip("-").isdigit() for key, value in labels.items()):
            return {str(name): _whole(int(value)) for value, name in labels.items()}
        return {str(name): _whole(value) for name, value in labels.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(
            "the labels cannot be understood",
            where=str(root / "dataset.json"),
            why=f"labels is {str(labels)[:200]} ({error})",
            mend='write it as {"background": 0, "tumour": 1}; overlapping regions are not read',
        ) from error


def listed_cases(root: Path, entries: Mapping[str, Any]) -> list[Case]:
    """nnU-Net's `dataset` entry: case id to its paths, relative to the data set and within it.

    Raises:
        DataError: An entry is malformed; a path leads out of the data set.
    """
    cases, astray = [], []
    for case_id, entry in sorted(entries.items()):
        images = entry.get("images") if isinstance(entry, dict) else None
        label = entry.get("label") if isinstance(entry, dict) else None
        if not isinstance(images, list) or not images or not all(isinstance(p, str) for p in (*images, label)):
            raise DataError(
                "the list of cases cannot be understood",
                where=f"case {shown_id(case_id)}, {root / 'dataset.json'}",
                why=f"its entry is {str(entry)[:200]!r}: 'images' or 'label' is missing or no list of paths",
                mend='write it as {"ID": {"images": ["..."], "label": "..."}}',
            )
        astray += [f"{shown_id(case_id)}: {path!r}" for path in (*images, label) if outside(path)]
        cases.append(Case(case_id, tuple(root / path for path in images), root / str(label), case_id))
    if astray:
        raise DataError(
            "the list of cases leads out of the data set",
            where=str(root / "dataset.json"),
            why=f"{len(astray)} paths are absolute or hold '..', such as {'; '.join(astray[:3])}",
            mend="put the files, or links to them, into the folder and list them relative to it",
        )
    return cases


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of two values under one key Python would silently drop the first."""
    if again := twice(key for key, _ in pairs):
        raise ValueError(f"the key {shown_id(again[0])!r} is there twice")
    return dict(pairs)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is no integer")
    if abs(value) >= 2**31:
        raise ValueError(f"{value} is beyond 32 bits")
    return value

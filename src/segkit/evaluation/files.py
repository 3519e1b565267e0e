"""The tables of an evaluation: per_case.csv and summary.json, each written whole or not at all."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segkit.evaluation.case import CaseResult
from segkit.evaluation.summary import Summary
from segkit.metrics.composite import ClassCounts
from segkit.metrics.overlap import METRICS
from segkit.runs.files import atomic_write, write_json
from segkit.types import Labels

COLUMNS = ("case_id", "group", "class", *METRICS, "tp", "fp", "fn", "n_reference", "n_prediction")
LESION_COLUMNS = ("lesion_tp", "lesion_fp", "lesion_fn", "lesion_iou_sum")


def write_per_case(path: Path, results: Sequence[CaseResult], labels: Labels, *, note: str = "") -> None:
    """Write one line a case and class, by case id. Undefined values are empty.

    Args:
        path: Where to; the folder is made.
        results: Any order.
        labels: Class names.
        note: What every line must say of itself (`SEEN CASES`); a last column, left out where empty.
    """
    ordered = [row for result in sorted(results, key=lambda result: result.case_id) for row in result.rows]
    lesions = any(row.lesions is not None for row in ordered)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *(LESION_COLUMNS if lesions else ()), *(("note",) if note else ())])
    for row in ordered:
        writer.writerow([*_cells(row, labels), *(_lesion_cells(row) if lesions else ()), *((note,) if note else ())])
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, text.getvalue())


def write_summary(path: Path, summary: Summary, *, facts: Mapping[str, Any] | None = None) -> None:
    """Write the summary as JSON.

    Args:
        path: Where to; the folder is made.
        summary: The numbers.
        facts: What stands before them: run, checkpoint, subset, label.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**(facts or {}), **summary.to_dict()})


def _cells(row: ClassCounts, labels: Labels) -> list[object]:
    overlap = row.overlap
    metrics = [float(getattr(overlap, metric)) for metric in METRICS]
    return [
        row.case_id,
        row.group,
        labels.names[row.class_index],
        *("" if math.isnan(value) else repr(value) for value in metrics),
        row.tp,
        row.fp,
        row.fn,
        row.n_reference,
        row.n_prediction,
    ]


def _lesion_cells(row: ClassCounts) -> list[object]:
    match = row.lesions
    return ["", "", "", ""] if match is None else [match.tp, match.fp, match.fn, repr(match.iou_sum)]

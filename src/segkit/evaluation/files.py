"""The tables of an evaluation: per_case.csv and summary.json, each written whole or not at all."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segkit.evaluation.case import CaseResult
from segkit.evaluation.detail import ClassDetail
from segkit.evaluation.detail_summary import DetailSummary
from segkit.evaluation.summary import Summary
from segkit.metrics.composite import ClassCounts
from segkit.metrics.overlap import METRICS
from segkit.runs.files import atomic_write, write_json
from segkit.types import Labels

COLUMNS = ("case_id", "group", "class", *METRICS, "tp", "fp", "fn", "n_reference", "n_prediction")
LESION_COLUMNS = ("lesion_tp", "lesion_fp", "lesion_fn", "lesion_iou_sum")
DETAIL_COLUMNS = (
    *("hd95", "assd", "nsd", "surface_found", "volume_similarity"),
    *("lesion_f1", "lesion_recall", "lesion_precision", "panoptic_quality", "component_dice"),
    *("lesion_splits", "lesion_merges", "lesion_invented_mm3"),
)
"""Distances in mm (pixels for pictures): infinite where one side is empty, as `surface_found` says."""


def write_per_case(
    path: Path,
    results: Sequence[CaseResult],
    labels: Labels,
    *,
    details: Sequence[ClassDetail] = (),
    note: str = "",
) -> None:
    """Write one line a case and class, by case id. Undefined values are empty.

    Of a class that nobody annotated in a case every cell but the names is empty, the number of reference voxels too: it
    is 0 where the class was looked for and is not there.

    Args:
        path: Where to; the folder is made.
        results: Any order.
        labels: Class names.
        details: Of all these cases, for the columns beside the voxel counts; none: those columns are left out.
        note: What every line must say of itself (`SEEN CASES`); a last column, left out where empty.
    """
    ordered = [row for result in sorted(results, key=lambda result: result.case_id) for row in result.rows]
    by_row = {(detail.case_id, detail.class_index): detail for detail in details}
    lesions = bool(details) or any(row.lesions is not None for row in ordered)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    extra = [*(LESION_COLUMNS if lesions else ()), *(DETAIL_COLUMNS if details else ()), *(("note",) if note else ())]
    writer.writerow([*COLUMNS, *extra])
    for row in ordered:
        if not row.annotated:
            names = [row.case_id, row.group, labels.names[row.class_index]]
            blank = [""] * (len(COLUMNS) + len(extra) - len(names) - bool(note))
            writer.writerow([*names, *blank, *((note,) if note else ())])
            continue
        detail = by_row[row.case_id, row.class_index] if details else None
        cells = _cells(row, labels)
        if lesions:
            cells += _lesion_cells(row) if detail is None else _matched_cells(detail)
        if detail is not None:
            cells += _detail_cells(detail)
        writer.writerow([*cells, *((note,) if note else ())])
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, text.getvalue())


def write_summary(
    path: Path, summary: Summary, *, facts: Mapping[str, Any] | None = None, detail: DetailSummary | None = None
) -> None:
    """Write the summary as JSON.

    Args:
        path: Where to; the folder is made.
        summary: The numbers.
        facts: What stands before them: run, checkpoint, subset, label.
        detail: Surfaces, volumes and lesions, where they were measured; its rules join the others.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {**(facts or {}), **summary.to_dict()}
    if detail is not None:
        record |= detail.to_dict() | {"rules": record["rules"] | detail.rules}
    write_json(path, record)


def _cells(row: ClassCounts, labels: Labels) -> list[object]:
    overlap = row.overlap
    metrics = [float(getattr(overlap, metric)) for metric in METRICS]
    return [
        row.case_id,
        row.group,
        labels.names[row.class_index],
        *(_number(value) for value in metrics),
        row.tp,
        row.fp,
        row.fn,
        row.n_reference,
        row.n_prediction,
    ]


def _lesion_cells(row: ClassCounts) -> list[object]:
    match = row.lesions
    return ["", "", "", ""] if match is None else [match.tp, match.fp, match.fn, repr(match.iou_sum)]


def _matched_cells(detail: ClassDetail) -> list[object]:
    found = detail.detection
    return [found.tp, found.fp, found.fn, repr(math.fsum(pair.iou for pair in found.pairs))]


def _detail_cells(detail: ClassDetail) -> list[object]:
    surface, matched = detail.surface, detail.detection
    numbers = [surface.hd, surface.assd, surface.nsd]
    rates = [
        detail.volume_similarity,
        *(matched.recognition_quality, matched.recall, matched.precision),
        detail.panoptic.panoptic_quality,
        detail.component_dice,
    ]
    return [
        *(_number(value) for value in numbers),
        surface.found,
        *(_number(value) for value in rates),
        detail.lesions.splits,
        detail.lesions.merges,
        _number(detail.detection.invented_voxels * detail.voxel_size),
    ]


def _number(value: float) -> str:
    """A cell; empty where undefined, `inf` where infinite."""
    return "" if math.isnan(value) else repr(float(value))

"""The same counts in the form of nnU-Net's summary.json, for the tools that read it.

Its rules are not ours: a case without the class in the reference in which it was predicted counts 0 (here: no mean,
but a false positive), one in which it is nowhere is left out, and the foreground mean is over classes. It knows no
class that was not annotated: that one is undefined here, and so in no mean.
"""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segkit.evaluation.case import CaseResult
from segkit.metrics.composite import ClassCounts
from segkit.runs.files import atomic_write
from segkit.types import Labels

COUNTS = ("FN", "FP", "TN", "TP", "n_pred", "n_ref")


def nnunet_summary(
    results: Sequence[CaseResult],
    labels: Labels,
    *,
    voxels: Mapping[str, int],
    files: Mapping[str, tuple[Path, Path]],
) -> dict[str, Any]:
    """nnU-Net's record of an evaluation.

    Args:
        results: Counts of each case.
        labels: Their values in the files name the classes there.
        voxels: By case, how many voxels were counted.
        files: By case, reference and prediction.
    """
    ordered = sorted(results, key=lambda result: result.case_id)
    cases: list[dict[str, Any]] = [
        {
            "metrics": {
                str(labels.ids[row.class_index]): _metrics(row, voxels[result.case_id])
                if row.annotated
                else dict.fromkeys(("Dice", "IoU", *COUNTS), math.nan)
                for row in result.rows
            },
            "prediction_file": str(files[result.case_id][1]),
            "reference_file": str(files[result.case_id][0]),
        }
        for result in ordered
    ]
    keys = [str(value) for value in labels.ids[1:]]
    mean = {key: _means([case["metrics"][key] for case in cases]) for key in keys}
    names = ("Dice", "IoU", *COUNTS)
    return {
        "foreground_mean": {name: statistics.fmean(mean[key][name] for key in keys) for name in names},
        "mean": mean,
        "metric_per_case": cases,
    }


def write_nnunet_summary(path: Path, record: Mapping[str, Any]) -> None:
    """Write it as nnU-Net does: what is undefined is the token NaN, which strict JSON does not know."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(record, indent=4, sort_keys=True) + "\n")


def _metrics(row: ClassCounts, voxels: int) -> dict[str, float]:
    either = row.tp + row.fp + row.fn
    return {
        "Dice": 2 * row.tp / (2 * row.tp + row.fp + row.fn) if either else math.nan,
        "IoU": row.tp / either if either else math.nan,
        "FN": row.fn,
        "FP": row.fp,
        "TN": voxels - either,
        "TP": row.tp,
        "n_pred": row.n_prediction,
        "n_ref": row.n_reference,
    }


def _means(cases: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each over the cases where it is defined."""
    found = {}
    for name in ("Dice", "IoU", *COUNTS):
        defined = [case[name] for case in cases if not math.isnan(case[name])]
        found[name] = statistics.fmean(defined) if defined else math.nan
    return found

"""The files of a comparison: differences.csv and comparison.json, each written whole or not at all."""

import csv
import io
import math
from pathlib import Path

from segkit.evaluation.comparison import Comparison
from segkit.runs.files import atomic_write, write_json

DIFFERENCES, COMPARISON = "differences.csv", "comparison.json"
_COLUMNS = ("case_id", "group", "class", "metric", "reference", "candidate", "difference")


def compared_rows(evaluation: Path) -> list[Path]:
    """Folders of the further rows of an evaluation: those that were compared with its plain prediction, by name."""
    return sorted(path.parent for path in evaluation.glob(f"*/{COMPARISON}"))


def write_comparison(folder: Path, comparison: Comparison, *, note: str = "") -> None:
    """Write both files.

    Args:
        folder: Where to; it is made.
        comparison: What was found.
        note: What every line must say of itself (`SEEN CASES`); a last column, left out where empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # comparison.json stands for both: it goes first and comes last, so that it never lies beside other differences.
    (folder / COMPARISON).unlink(missing_ok=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_COLUMNS, *(("note",) if note else ())])
    for one in comparison.cases:
        values = ("" if math.isnan(v) else repr(v) for v in (one.reference, one.candidate, one.difference))
        names = (one.case_id, one.group, one.class_name, one.metric)
        writer.writerow([*names, *values, *((note,) if note else ())])
    atomic_write(folder / DIFFERENCES, text.getvalue())
    write_json(folder / COMPARISON, comparison.to_dict())

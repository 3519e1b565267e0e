"""Which way a metric is better: what a comparison must know before it may call anything better."""

from collections.abc import Mapping
from typing import Literal

Better = Literal["higher", "lower"]

BETTER: Mapping[str, Better] = {
    "dice": "higher",
    "iou": "higher",
    "precision": "higher",
    "recall": "higher",
    "nsd": "higher",
    "cc_dice": "higher",
    "lesion_f1": "higher",
    "lesion_precision": "higher",
    "lesion_recall": "higher",
    "sq": "higher",
    "pq": "higher",
    "hd_mm": "lower",
    "hd95_mm": "lower",
    "assd_mm": "lower",
    "hd_px": "lower",
    "hd95_px": "lower",
    "assd_px": "lower",
}
"""By the name of the column in per_case.csv; a new column that shall be compared is entered here."""

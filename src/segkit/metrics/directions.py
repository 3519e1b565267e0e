"""Which way a metric is better: what a comparison must know before it may call anything better."""

from collections.abc import Mapping
from typing import Literal

Better = Literal["higher", "lower"]

BETTER: Mapping[str, Better] = {
    "dice": "higher",
    "iou": "higher",
    "precision": "higher",
    "recall": "higher",
    "volume_similarity": "higher",
    "nsd": "higher",
    "lesion_f1": "higher",
    "lesion_recall": "higher",
    "lesion_precision": "higher",
    "panoptic_quality": "higher",
    "component_dice": "higher",
    "hd95": "lower",
    "assd": "lower",
}
"""By the name of the column in per_case.csv; a new column that shall be compared is entered here."""

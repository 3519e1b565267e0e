"""Dice, IoU, precision and recall from counts of voxels (or of lesions).

One rule for what is undefined, for all four alike:

    reference present, prediction empty    0 (precision too: silence is not rewarded)
    reference empty                        NaN: not in a mean; what was predicted is reported as a false positive
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Num

from segkit.ops.confusion import Counts

Values: TypeAlias = Float[np.ndarray, "*N"]
Count: TypeAlias = int | Num[np.ndarray, "*N"]
Number: TypeAlias = Values | np.float64

METRICS = ("dice", "iou", "precision", "recall")
"""Names of the four, in the order in which they are written."""


@dataclass(frozen=True)
class Overlap:
    """The four overlap metrics of the same counts; float64, NaN where the reference is empty."""

    dice: Values
    iou: Values
    precision: Values
    recall: Values


def dice(tp: Count, fp: Count, fn: Count) -> Values:
    """2 TP / (2 TP + FP + FN): the F1 of the voxels."""
    tp, fp, fn = _counts(tp, fp, fn)
    return _ratio(2 * tp, 2 * tp + fp + fn, reference=tp + fn)


def iou(tp: Count, fp: Count, fn: Count) -> Values:
    """TP / (TP + FP + FN) = Dice / (2 - Dice): intersection over union, the Jaccard index."""
    tp, fp, fn = _counts(tp, fp, fn)
    return _ratio(tp, tp + fp + fn, reference=tp + fn)


def precision(tp: Count, fp: Count, fn: Count) -> Values:
    """TP / (TP + FP): the share of what was predicted that is right; 0 where nothing was predicted."""
    tp, fp, fn = _counts(tp, fp, fn)
    return _ratio(tp, tp + fp, reference=tp + fn)


def recall(tp: Count, fp: Count, fn: Count) -> Values:
    """TP / (TP + FN): the share of the reference that was found, the sensitivity."""
    tp, fp, fn = _counts(tp, fp, fn)
    return _ratio(tp, tp + fn, reference=tp + fn)


def overlap(tp: Count, fp: Count, fn: Count) -> Overlap:
    """All four from the same counts, element by element."""
    return Overlap(
        dice=dice(tp, fp, fn), iou=iou(tp, fp, fn), precision=precision(tp, fp, fn), recall=recall(tp, fp, fn)
    )


def overlap_by_class(counts: Counts) -> Overlap:
    """All four for each of the K classes of a confusion count."""
    return overlap(counts.tp.cpu().numpy(), counts.fp.cpu().numpy(), counts.fn.cpu().numpy())


def _counts(*counts: Count) -> tuple[Values, ...]:
    """Counts as float64, exact below 2^53 voxels."""
    return tuple(np.asarray(count, dtype=np.float64) for count in counts)


def _ratio(numerator: Number, denominator: Number, *, reference: Number) -> Values:
    """Numerator / denominator; 0 for 0/0; NaN where the reference is empty."""
    quotient = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
    return np.where(reference > 0, quotient, np.nan)

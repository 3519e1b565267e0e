"""The composite score: one number to select by, from counts of one stated level and aggregate.

    score = sum of weight x metric,    weights that sum to 1

`level=voxel` counts voxels: F1 is Dice and IoU is F1 / (2 - F1), so the two hold the same information twice.
`level=lesion` counts lesions by the rule of `metrics.lesion`; IoU is then the mean over reference lesions, a
missed one counting 0.

`aggregate=per_case` takes the mean over the cases that have the class in their reference, then over classes.
`aggregate=pooled` sums the counts of all cases first, then takes the mean over classes.

All terms come from the same counts on the same cases. Reference present and nothing predicted is 0 for every
term. A case without reference is not in the per-case mean; its false alarms are reported beside the score and
enter it through `case_specificity`, the share of such cases in which nothing was predicted, where that has a
weight. Pooled counts hold its false positives anyway. A case in which the class was not annotated counts nowhere. A
class without reference in any case is left out and named. So predicting nothing never raises a per-case score, and
a false alarm never raises any.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from segkit.errors import UsageError
from segkit.metrics.lesion import LesionMatch
from segkit.metrics.overlap import Overlap, overlap

Level = Literal["voxel", "lesion"]
Aggregate = Literal["per_case", "pooled"]

TERMS = ("f1", "iou", "recall", "precision", "case_specificity")
DEFAULT_WEIGHTS: Mapping[str, float] = {"f1": 0.40, "iou": 0.25, "recall": 0.20, "precision": 0.15}


@dataclass(frozen=True)
class ClassCounts:
    """What was counted for one foreground class in one case, on the native grid.

    Args:
        case_id: Case.
        group: Group (person).
        class_index: Class, 1 or more.
        tp: Voxels found.
        fp: Voxels invented.
        fn: Voxels missed.
        lesions: The same of lesions, where they were matched.
        annotated: False where nobody annotated the class in the case: not applicable there, and nothing is counted.
    """

    case_id: str
    group: str
    class_index: int
    tp: int
    fp: int
    fn: int
    lesions: LesionMatch | None = None
    annotated: bool = True

    @property
    def n_reference(self) -> int:
        """Voxels of the reference."""
        return self.tp + self.fn

    @property
    def n_prediction(self) -> int:
        """Voxels of the prediction, ignored ones left out."""
        return self.tp + self.fp

    @property
    def overlap(self) -> Overlap:
        """Dice, IoU, precision and recall of the voxels."""
        return overlap(self.tp, self.fp, self.fn)


@dataclass(frozen=True)
class CompositeSettings:
    """Which composite.

    Args:
        weights: Weight of f1, iou, recall, precision and case_specificity; a term left out weighs 0.
        level: What is counted.
        aggregate: Whether metrics or counts are taken together over the cases.

    Raises:
        UsageError: An unknown term, a negative weight, or weights that do not sum to 1.
    """

    weights: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_WEIGHTS))
    level: Level = "voxel"
    aggregate: Aggregate = "per_case"

    def __post_init__(self) -> None:
        where = "score.weights"
        unknown = sorted(set(self.weights) - set(TERMS))
        if unknown:
            raise UsageError(f"no score term {', '.join(unknown)}", where=where, mend=f"use {', '.join(TERMS)}")
        if any(not math.isfinite(w) or w < 0 for w in self.weights.values()):
            raise UsageError(
                "a weight of the score is negative or not finite", where=where, why=str(dict(self.weights))
            )
        total = sum(self.weights.values())
        if not math.isclose(total, 1.0, abs_tol=1e-6):
            why = f"{dict(self.weights)} sum to {total:g}"
            raise UsageError("the weights of the score must sum to 1", where=where, why=why)
        if self.weights.get("case_specificity", 0.0) >= 1.0:
            why = "an empty prediction would be perfect"
            raise UsageError("the score cannot be case_specificity alone", where=where, why=why)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"weights": dict(self.weights), "level": self.level, "aggregate": self.aggregate}

    @property
    def formula(self) -> str:
        """`0.4 f1 + 0.25 iou + 0.2 recall + 0.15 precision of voxels, per case`."""
        terms = " + ".join(f"{self.weights[t]:g} {t}" for t in TERMS if self.weights.get(t, 0.0) > 0)
        return f"{terms} of {self.level}s, {self.aggregate.replace('_', ' ')}"


@dataclass(frozen=True)
class Composite:
    """The score and what it is made of.

    Args:
        score: Weighted sum, mean over classes; NaN where no class has a reference in any case.
        terms: Mean over classes of each term; NaN where undefined.
        by_class: Score of each class, by class index.
        per_case: Score of each case with a reference: the mean over the classes it has; for paired comparison.
        left_out: Classes without a reference in any case.
    """

    score: float
    terms: dict[str, float]
    by_class: dict[int, float]
    per_case: dict[str, float]
    left_out: tuple[int, ...]


def weighted_sum(terms: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Sum of weight x term; the weight of an undefined (NaN) term goes to the others in proportion."""
    defined = {term: w for term, w in weights.items() if w > 0 and not math.isnan(terms[term])}
    if not defined:
        return float("nan")
    return sum(w * terms[term] for term, w in defined.items()) / sum(defined.values())


def composite_score(rows: Sequence[ClassCounts], settings: CompositeSettings) -> Composite:
    """The composite score of a set of cases.

    Args:
        rows: One row a case and foreground class, healthy cases included.
        settings: Weights, level and aggregate.

    Raises:
        ValueError: `level=lesion` and a row without matched lesions, or a case and class that comes twice.
    """
    keys = [(row.case_id, row.class_index) for row in rows]
    if len(set(keys)) != len(keys):
        raise ValueError("a case has two rows of the same class")
    indices = sorted({row.class_index for row in rows})
    rows = [row for row in rows if row.annotated]
    by_class: dict[int, float] = {}
    terms_by_class: dict[int, dict[str, float]] = {}
    left_out: list[int] = []
    for index in indices:
        table = _table([row for row in rows if row.class_index == index], settings.level)
        if table[:, REFERENCE].sum() == 0:
            left_out.append(index)
            continue
        terms = _class_terms(table, settings.aggregate)
        terms_by_class[index] = terms
        by_class[index] = weighted_sum(terms, settings.weights)
    return Composite(
        score=float(np.mean(list(by_class.values()))) if by_class else float("nan"),
        terms={term: _nanmean([terms[term] for terms in terms_by_class.values()]) for term in TERMS},
        by_class=by_class,
        per_case=_per_case(rows, settings),
        left_out=tuple(left_out),
    )


TP, FP, FN, REFERENCE, IOU_SUM = range(5)


def _table(rows: Sequence[ClassCounts], level: Level) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(cases, 5): TP, FP, FN, size of the reference, and the numerator of the mean IoU over reference lesions."""
    table = []
    for row in rows:
        counts: ClassCounts | LesionMatch = row
        iou_sum = float("nan")
        if level == "lesion":
            if row.lesions is None:
                raise ValueError(f"case {row.case_id}: lesions were not matched, but level=lesion")
            counts, iou_sum = row.lesions, row.lesions.iou_sum
        table.append([counts.tp, counts.fp, counts.fn, counts.tp + counts.fn, iou_sum])
    return np.asarray(table, dtype=np.float64).reshape(-1, 5)


def _class_terms(table: np.ndarray[Any, np.dtype[np.float64]], aggregate: Aggregate) -> dict[str, float]:
    """The terms of one class over all cases."""
    healthy = table[:, REFERENCE] == 0
    specificity = float(np.mean(table[healthy, FP] == 0)) if healthy.any() else float("nan")
    counted = table.sum(axis=0, keepdims=True) if aggregate == "pooled" else table[~healthy]
    values = overlap(counted[:, TP], counted[:, FP], counted[:, FN])
    iou = values.iou if np.isnan(counted[:, IOU_SUM]).all() else counted[:, IOU_SUM] / counted[:, REFERENCE]
    return {
        "f1": float(values.dice.mean()),
        "iou": float(iou.mean()),
        "recall": float(values.recall.mean()),
        "precision": float(values.precision.mean()),
        "case_specificity": specificity,
    }


def _per_case(rows: Sequence[ClassCounts], settings: CompositeSettings) -> dict[str, float]:
    scores: dict[str, list[float]] = {}
    for row in rows:
        table = _table([row], settings.level)
        if table[0, REFERENCE] > 0:
            terms = _class_terms(table, "per_case")
            scores.setdefault(row.case_id, []).append(weighted_sum(terms, settings.weights))
    return {case_id: float(np.mean(values)) for case_id, values in scores.items()}


def _nanmean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")

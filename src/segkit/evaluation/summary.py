"""The numbers of a set of cases: the score, and each metric by class with n and an interval."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segkit.evaluation.case import CaseResult
from segkit.evaluation.settings import EvaluationSettings
from segkit.metrics.composite import ClassCounts, Composite, composite_score
from segkit.metrics.overlap import METRICS, overlap
from segkit.metrics.uncertainty import MIN_GROUPS, Interval, finite_or_none, macro_interval, mean_interval
from segkit.ops.connected_components import size_unit
from segkit.types import Labels

RULES = {
    "undefined": "reference empty: not in a mean, counted under healthy_cases; reference present and nothing "
    "predicted: 0 for dice, iou, precision and recall",
    "mean": "over the cases that have the class in their reference, then over classes",
    "annotated": "a class that nobody annotated in a case is not applicable there, whatever was predicted: in no mean, "
    "counted under not_annotated_cases; for the other classes such a voxel is one that is not theirs",
    "interval": f"95 % t interval by group (person), cut to [0, 1]; none below {MIN_GROUPS} groups",
}


@dataclass(frozen=True)
class ClassSummary:
    """One foreground class over all cases.

    Args:
        name: Class name.
        metrics: dice, iou, precision, recall, each with n and interval.
        healthy_cases: Cases without the class in their reference.
        false_positive_cases: Those of them in which it was predicted all the same.
        false_positive_voxels: What was predicted there, in voxels.
        pooled: The four metrics of the voxels of all cases together, those without the class included.
        not_annotated_cases: Cases in which nobody annotated the class; in none of the other numbers.
    """

    name: str
    metrics: Mapping[str, Interval]
    healthy_cases: int
    false_positive_cases: int
    false_positive_voxels: int
    pooled: Mapping[str, float]
    not_annotated_cases: int = 0

    @property
    def case_specificity(self) -> float:
        """Share of the cases without the class in which none was predicted; NaN where there is no such case.

        There is no specificity of voxels here: the background is so large that it is one for any model.
        """
        return 1 - self.false_positive_cases / self.healthy_cases if self.healthy_cases else math.nan


@dataclass(frozen=True)
class Summary:
    """A set of cases.

    Args:
        composite: The score and its terms.
        classes: One a foreground class.
        mean: dice, iou, precision, recall over cases, then classes.
        n_cases: Cases scored.
        n_groups: Groups (people) they belong to.
        settings: How they were scored.
        names: Class names by index, background first.
        unit: Of lengths: "mm" or "pixel".
        dimensions: Axes of the masks.
    """

    composite: Composite
    classes: tuple[ClassSummary, ...]
    mean: Mapping[str, Interval]
    n_cases: int
    n_groups: int
    settings: EvaluationSettings
    names: tuple[str, ...]
    unit: str = "mm"
    dimensions: int = 3

    @property
    def score(self) -> float:
        """The composite score; NaN where no case has any class."""
        return self.composite.score

    @property
    def per_case_score(self) -> dict[str, float]:
        """Composite of each case that has a class in its reference."""
        return self.composite.per_case

    def flat(self, prefix: str) -> dict[str, float]:
        """`prefix/dice`, `prefix/dice/CLASS`, ... and `prefix/false_positive_cases`, for curves."""
        values = {f"{prefix}/{metric}": interval.mean for metric, interval in self.mean.items()}
        for summary in self.classes:
            values |= {f"{prefix}/{metric}/{summary.name}": i.mean for metric, i in summary.metrics.items()}
        values[f"{prefix}/false_positive_cases"] = float(sum(c.false_positive_cases for c in self.classes))
        return values

    def to_dict(self) -> dict[str, Any]:
        """JSON form; what is undefined is null."""
        composite = self.composite
        return {
            "score": finite_or_none(self.score),
            "score_formula": self.settings.composite.formula,
            "score_terms": {term: finite_or_none(value) for term, value in composite.terms.items()},
            "score_by_class": {self.names[k]: finite_or_none(value) for k, value in composite.by_class.items()},
            "classes_without_reference": [self.names[k] for k in composite.left_out],
            "n_cases": self.n_cases,
            "n_groups": self.n_groups,
            "mean": _intervals(self.mean),
            "classes": {
                summary.name: {
                    **_intervals(summary.metrics),
                    "healthy_cases": summary.healthy_cases,
                    "false_positive_cases": summary.false_positive_cases,
                    "false_positive_voxels": summary.false_positive_voxels,
                    "case_specificity": finite_or_none(summary.case_specificity),
                    "not_annotated_cases": summary.not_annotated_cases,
                    "pooled": {metric: finite_or_none(value) for metric, value in summary.pooled.items()},
                }
                for summary in self.classes
            },
            "rules": RULES | self._lesion_rule(),
            "settings": self.settings.to_dict(),
        }

    def _lesion_rule(self) -> dict[str, str]:
        rule = self.settings.lesion.rule(size_unit(self.unit, self.dimensions))
        return {"lesion": rule} if self.settings.composite.level == "lesion" else {}

    def table(self) -> Iterator[str]:
        """Lines for a terminal: class, Dice, IoU, precision and recall with their interval, n."""
        rows = [(c.name, c.metrics) for c in self.classes]
        rows += [("mean", self.mean)] if len(rows) > 1 else []
        width = max(len("class"), *(len(name) for name, _ in rows))
        yield f"{'class':<{width}}  " + "".join(f"{metric:<22}" for metric in METRICS) + "n"
        for name, metrics in rows:
            cells = "".join(f"{_cell(metrics[metric]):<22}" for metric in METRICS)
            n, groups = metrics["dice"].n, metrics["dice"].n_groups
            yield f"{name:<{width}}  {cells}{n}" + ("" if n == groups else f" ({groups} groups)")
        for c in self.classes:
            if c.false_positive_cases:
                found = f"{c.false_positive_cases} of {c.healthy_cases} cases without it"
                yield f"{c.name} predicted in {found} ({c.false_positive_voxels} voxels)"
            if c.not_annotated_cases:
                lacking = f"{c.not_annotated_cases} of {self.n_cases} cases"
                yield f"{c.name} was not annotated in {lacking}: not applicable there"
        for k in self.composite.left_out:
            yield f"{self.names[k]} is in no reference: not scored"
        if self.n_groups < MIN_GROUPS:
            yield f"no interval below {MIN_GROUPS} groups; there are {self.n_groups}"


def summarise(
    results: Sequence[CaseResult],
    labels: Labels,
    settings: EvaluationSettings,
    *,
    unit: str = "mm",
    dimensions: int = 3,
) -> Summary:
    """Numbers of a set of cases.

    Args:
        results: One a case, in any order.
        labels: Class names.
        settings: Those the cases were scored with.
        unit: Of lengths: "mm", or "pixel" where the files know no mm.
        dimensions: Axes of the masks.
    """
    results = sorted(results, key=lambda result: result.case_id)
    rows = [row for result in results for row in result.rows]
    by_class = [[row for row in rows if row.class_index == index] for index in range(1, labels.num_classes)]
    groups = [result.group for result in results]
    tables = {
        metric: np.asarray([[float(getattr(row.overlap, metric)) for row in result.rows] for result in results])
        for metric in METRICS
    }
    return Summary(
        composite=composite_score(rows, settings.composite),
        classes=tuple(
            _class_summary(name, of_class) for name, of_class in zip(labels.foreground, by_class, strict=True)
        ),
        mean={
            metric: macro_interval(table.reshape(len(results), labels.num_classes - 1), groups, bounds=(0.0, 1.0))
            for metric, table in tables.items()
        },
        n_cases=len(results),
        n_groups=len(set(groups)),
        settings=settings,
        names=labels.names,
        unit=unit,
        dimensions=dimensions,
    )


def _class_summary(name: str, rows: Sequence[ClassCounts]) -> ClassSummary:
    groups = [row.group for row in rows]
    invented = [row.fp for row in rows if row.annotated and row.n_reference == 0]
    pooled = overlap(*(sum(getattr(row, count) for row in rows) for count in ("tp", "fp", "fn")))
    return ClassSummary(
        name=name,
        metrics={
            metric: mean_interval([float(getattr(row.overlap, metric)) for row in rows], groups, bounds=(0.0, 1.0))
            for metric in METRICS
        },
        healthy_cases=len(invented),
        false_positive_cases=sum(voxels > 0 for voxels in invented),
        false_positive_voxels=sum(invented),
        pooled={metric: float(getattr(pooled, metric)) for metric in METRICS},
        not_annotated_cases=sum(not row.annotated for row in rows),
    )


def _cell(interval: Interval) -> str:
    if interval.n == 0:
        return "n/a"
    return f"{interval.mean:.3f}" + (f" [{interval.low:.3f}, {interval.high:.3f}]" if interval.published else "")


def _intervals(metrics: Mapping[str, Interval]) -> dict[str, Any]:
    return {metric: interval.to_dict() for metric, interval in metrics.items()}

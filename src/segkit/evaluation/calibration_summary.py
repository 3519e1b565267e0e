"""The numbers of a calibration over its test cases, with intervals by person, and its table of cases."""

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from segkit.evaluation.calibration import CaseCalibration
from segkit.metrics.quality import mean_of_defined
from segkit.metrics.rank_correlation import MIN_GROUPS as MIN_GROUPS_OF_RANKS
from segkit.metrics.rank_correlation import RankCorrelation, rank_correlation
from segkit.metrics.reliability import BINS, Reliability, mean_reliability
from segkit.metrics.uncertainty import MIN_GROUPS, Interval, mean_interval
from segkit.runs.files import atomic_write
from segkit.types import Labels

RULES = {
    "probabilities": "softmax(z / T), z the logits on the image's own voxels, averaged over the models; T = 1 before",
    "region": "of a class: voxels within the margin of its truth or of its prediction, inside the crop that the "
    "network saw; ignored voxels leave truth, prediction and region",
    "ece": f"one class against the rest, {BINS} bins of equal width, by case; pooled: one table, each case weighing "
    "the same",
    "brier": "mean of (p - y)^2 over the region, by case",
    "undefined": "a class that is neither in truth nor in prediction of a case: not applicable there, counted",
    "interval": f"95 % t interval by group (person); none below {MIN_GROUPS} groups",
    "estimate": "2 sum of p over the predicted voxels / (their number + sum of p over all voxels), by class, then the "
    "mean over the classes that are predicted or of which one voxel is expected; made without the truth",
    "rank_correlation": "Spearman, of the estimate with the mean Dice over the classes in the reference; interval by "
    f"Bonett and Wright with the number of groups for n; none below {MIN_GROUPS_OF_RANKS} groups",
}
COLUMNS = (
    "case_id", "group", "class", "voxels", "ece_before", "ece_after", "brier_before", "brier_after", "nll_before",
    "nll_after", "dice", "dice_estimate",
)  # fmt: skip
ALL_CLASSES = "all"


class Change(NamedTuple):
    """Means over cases before and after, and of the difference after - before by case."""

    before: Interval
    after: Interval
    change: Interval

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {name: _interval(value) for name, value in self._asdict().items()}


@dataclass(frozen=True)
class ClassCalibration:
    """One foreground class.

    Args:
        name: Class name.
        ece: Expected calibration error by case.
        brier: Brier score by case.
        before: The mean table of the cases.
        after: The same at the temperature.
        not_applicable: Cases whose region is empty.
    """

    name: str
    ece: Change
    brier: Change
    before: Reliability
    after: Reliability
    not_applicable: int

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "ece": self.ece.to_dict(),
            "brier": self.brier.to_dict(),
            "pooled_ece": {"before": self.before.ece, "after": self.after.ece},
            "not_applicable": self.not_applicable,
            "reliability": {"before": self.before.rows(), "after": self.after.rows()},
        }


@dataclass(frozen=True)
class CalibrationSummary:
    """A set of cases that neither the weights nor the temperature have seen.

    Args:
        classes: One a foreground class.
        nll: Mean negative log-likelihood in the union of the regions.
        quality: Rank correlation of the estimated with the true Dice of a case.
        error: Estimate less true Dice, mean over cases.
        n_cases: Cases.
        n_groups: Groups (people) they belong to.
    """

    classes: tuple[ClassCalibration, ...]
    nll: Change
    quality: RankCorrelation
    error: Interval
    n_cases: int
    n_groups: int

    def to_dict(self) -> dict[str, Any]:
        """JSON form; what is undefined is null."""
        found = self.quality
        return {
            "n_cases": self.n_cases,
            "n_groups": self.n_groups,
            "nll": self.nll.to_dict(),
            "classes": {one.name: one.to_dict() for one in self.classes},
            "quality": {
                "spearman": found.rho,
                "interval": [found.low, found.high] if found.published else None,
                "n": found.n,
                "n_groups": found.n_groups,
                "error": _interval(self.error),
            },
        }

    def table(self) -> Iterator[str]:
        """Lines for a terminal."""
        width = max(len("class"), *(len(one.name) for one in self.classes))
        yield f"{'class':<{width}}  {'ECE before':<22}{'after':<22}{'Brier before':<22}{'after':<22}n"
        for one in self.classes:
            cells = [one.ece.before, one.ece.after, one.brier.before, one.brier.after]
            n, groups = cells[0].n, cells[0].n_groups
            people = "" if n == groups else f" ({groups} groups)"
            yield f"{one.name:<{width}}  " + "".join(f"{_cell(cell):<22}" for cell in cells) + f"{n}{people}"
        yield f"negative log-likelihood {_cell(self.nll.before)} -> {_cell(self.nll.after)} nats a voxel"
        yield f"estimated against true Dice by case: Spearman {self.quality}; estimate - truth {self.error}"


def summarise_calibration(results: Sequence[CaseCalibration], labels: Labels) -> CalibrationSummary:
    """Numbers of a set of cases.

    Args:
        results: One a case, in any order.
        labels: Class names.
    """
    results = sorted(results, key=lambda result: result.case_id)
    groups = [result.group for result in results]
    classes = []
    for k, name in enumerate(labels.foreground):
        pairs = [(result.before[k], result.after[k]) for result in results]
        classes.append(
            ClassCalibration(
                name=name,
                ece=_change(pairs, groups, lambda table: table.ece),
                brier=_change(pairs, groups, lambda table: table.brier),
                before=mean_reliability([before for before, _ in pairs]),
                after=mean_reliability([after for _, after in pairs]),
                not_applicable=sum(before.n == 0 for before, _ in pairs),
            )
        )
    truth = [mean_of_defined(result.dice) for result in results]
    estimate = [mean_of_defined(result.estimate) for result in results]
    losses = [result.nll for result in results]
    return CalibrationSummary(
        classes=tuple(classes),
        nll=Change(
            mean_interval([a for a, _ in losses], groups),
            mean_interval([b for _, b in losses], groups),
            mean_interval([b - a for a, b in losses], groups),
        ),
        quality=rank_correlation(estimate, truth, groups),
        error=mean_interval([e - t for e, t in zip(estimate, truth, strict=True)], groups),
        n_cases=len(results),
        n_groups=len(set(groups)),
    )


def write_calibration_cases(path: Path, results: Sequence[CaseCalibration], labels: Labels) -> None:
    """Write one line a case and class, and one a case (`all`), by case id. Undefined values are empty.

    Args:
        path: Where to; the folder is made.
        results: Any order.
        labels: Class names.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for result in sorted(results, key=lambda result: result.case_id):
        for k, name in enumerate(labels.foreground):
            before, after = result.before[k], result.after[k]
            values = [before.ece, after.ece, before.brier, after.brier, math.nan, math.nan]
            values += [float(result.dice[k]), float(result.estimate[k])]
            writer.writerow([result.case_id, result.group, name, int(before.n), *map(_text, values)])
        values = [math.nan] * 4 + [*result.nll, mean_of_defined(result.dice), mean_of_defined(result.estimate)]
        writer.writerow([result.case_id, result.group, ALL_CLASSES, result.voxels, *map(_text, values)])
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, text.getvalue())


def _change(
    pairs: Sequence[tuple[Reliability, Reliability]], groups: Sequence[str], value: Callable[[Reliability], float]
) -> Change:
    before, after = [value(a) for a, _ in pairs], [value(b) for _, b in pairs]
    return Change(
        mean_interval(before, groups, bounds=(0.0, 1.0)),
        mean_interval(after, groups, bounds=(0.0, 1.0)),
        mean_interval([b - a for a, b in zip(before, after, strict=True)], groups),
    )


def _interval(interval: Interval) -> dict[str, Any]:
    return {
        "mean": interval.mean,
        "interval": [interval.low, interval.high] if interval.published else None,
        "n": interval.n,
        "n_groups": interval.n_groups,
    }


def _cell(interval: Interval) -> str:
    if interval.n == 0:
        return "n/a"
    return f"{interval.mean:.3f}" + (f" [{interval.low:.3f}, {interval.high:.3f}]" if interval.published else "")


def _text(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))

"""Two models, or two methods, on the same cases: the difference by metric and class, and what may be said of it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from segkit.errors import UsageError
from segkit.evaluation.same_cases import inference_notes, require_same_cases
from segkit.evaluation.stored_table import StoredTable
from segkit.metrics.directions import BETTER, Better
from segkit.metrics.paired_comparison import (
    MIN_GROUPS_P,
    MIN_SEEDS,
    Difference,
    Scope,
    holm,
    paired_difference,
    scope_of,
    smallest_p,
)
from segkit.metrics.uncertainty import MIN_GROUPS

Side: TypeAlias = Sequence[StoredTable]
"""The tables of one run, or of several that are seeds of one method."""
Verdict = Literal["candidate better", "reference better", "no difference shown", "not judged", "too few groups"]

ALPHA = 0.05
"""Chance of a difference shown anywhere in the family where there is none; the intervals are 95 % accordingly."""
MEAN = "mean"
TESTS: Mapping[Scope, str] = {
    "models": "Wilcoxon's signed ranks of the groups' mean differences, exact, zeros ranked (Pratt)",
    "methods": "t of groups and seeds, degrees of freedom after Satterthwaite",
}
INTERVALS: Mapping[Scope, str] = {
    "models": f"95 % t interval by group (person), each row by itself; none below {MIN_GROUPS} groups",
    "methods": f"95 % t interval over groups (people) and seeds, each row by itself; none below {MIN_GROUPS} groups",
}


@dataclass(frozen=True)
class Row:
    """One metric of one class, or of the mean over the classes.

    Args:
        metric: Name of its column.
        class_name: Class, or `mean`.
        better: Which way the metric is better.
        difference: Means, difference, interval and p-value.
        p_holm: The p-value adjusted for the family; NaN where there was no test.
        infinite: Cases with an infinite value, of the reference and of the candidate; a mean over the seeds.
    """

    metric: str
    class_name: str
    better: Better
    difference: Difference
    p_holm: float
    infinite: tuple[float, float]

    @property
    def name(self) -> str:
        """As the family prints it."""
        return f"{self.metric} {self.class_name}"

    @property
    def published_p(self) -> float | None:
        """The adjusted p-value where there are enough groups for one to be shown."""
        enough = self.difference.interval.n_groups >= MIN_GROUPS_P
        return self.p_holm if enough and math.isfinite(self.p_holm) else None

    @property
    def verdict(self) -> Verdict:
        """A difference is shown where the test, within its family, and the interval both say so."""
        interval = self.difference.interval
        if not interval.published:
            return "too few groups"
        if not (self.p_holm < ALPHA and (interval.low > 0 or interval.high < 0)):
            return "no difference shown"
        candidate = (interval.mean > 0) == (self.better == "higher")
        # Where a structure is missed its distance is infinite and in no mean: who misses more must not win by that.
        if self.infinite[candidate] > self.infinite[not candidate]:
            return "not judged"
        return "candidate better" if candidate else "reference better"

    @property
    def sentence(self) -> str:
        """The verdict in words, with the numbers it rests on."""
        interval = self.difference.interval
        if interval.n == 0:
            return "no case in which both sides have a value"
        if self.verdict == "too few groups":
            return f"{interval.n_groups} groups are too few for an interval or a test"
        limits = f"95 % interval {interval.low:+.4f} to {interval.high:+.4f}"
        if self.verdict == "no difference shown":
            apart = interval.low > 0 or interval.high < 0
            return f"no difference shown; {limits}" + (" leaves out 0, the test does not reject" if apart else "")
        if self.verdict == "not judged":
            a, b = self.infinite
            return f"not judged: infinite in {a:g} cases of the reference and {b:g} of the candidate; {limits}"
        side, amount = self.verdict.partition(" ")[0], abs(interval.mean)
        return f"the {side} is better by {amount:.4f}; {limits}"

    def to_dict(self) -> dict[str, Any]:
        """JSON form; what is not published is null."""
        interval = self.difference.interval
        return {
            "metric": self.metric,
            "class": self.class_name,
            "better": self.better,
            "reference": _number(self.difference.reference),
            "candidate": _number(self.difference.candidate),
            "difference": _number(interval.mean),
            "interval": [interval.low, interval.high] if interval.published else None,
            "n": interval.n,
            "n_groups": interval.n_groups,
            "groups_up": self.difference.up,
            "groups_down": self.difference.down,
            "infinite": {"reference": self.infinite[0], "candidate": self.infinite[1]},
            "p_holm": self.published_p,
            "verdict": self.verdict,
            "sentence": self.sentence,
        }


@dataclass(frozen=True)
class CaseDifference:
    """One case, class and metric; of several seeds their mean. NaN where undefined."""

    case_id: str
    group: str
    class_name: str
    metric: str
    reference: float
    candidate: float

    @property
    def difference(self) -> float:
        """Candidate less reference; NaN where one is undefined or both are infinite."""
        return self.candidate - self.reference


@dataclass(frozen=True)
class Comparison:
    """Two sides on the same cases.

    Args:
        label: What the result must call itself: `test`, `SEEN CASES`, ...
        scope: Whether it speaks of models or of methods.
        reference: Tables of the reference.
        candidate: Tables of the candidate.
        rows: Metrics and classes; those with a test are the family.
        cases: The differences one by one.
        notes: What else must be known.
    """

    label: str
    scope: Scope
    reference: tuple[StoredTable, ...]
    candidate: tuple[StoredTable, ...]
    rows: tuple[Row, ...]
    cases: tuple[CaseDifference, ...]
    notes: tuple[str, ...]

    @property
    def n_cases(self) -> int:
        """Cases of the tables."""
        return len(self.reference[0].cases)

    @property
    def n_groups(self) -> int:
        """Groups (people) they belong to."""
        return len(set(self.reference[0].groups.values()))

    @property
    def family(self) -> tuple[str, ...]:
        """Names of the tests that were made."""
        return tuple(row.name for row in self.rows if math.isfinite(row.p_holm))

    @property
    def statement(self) -> str:
        """What the comparison is about."""
        seeds = f"{len(self.reference)} and {len(self.candidate)}"
        if self.scope == "methods":
            return (
                f"these two methods ({seeds} seeds): new trainings on the same training data, new people; "
                "nothing is said of other training data"
            )
        which = "these two models" if seeds == "1 and 1" else f"these models ({seeds}, each side averaged)"
        return f"{which} on new people; nothing is said of the methods, which takes {MIN_SEEDS} seeds a side"

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "label": self.label,
            "scope": self.scope,
            "statement": self.statement,
            "reference": [_facts(table) for table in self.reference],
            "candidate": [_facts(table) for table in self.candidate],
            "n_cases": self.n_cases,
            "n_groups": self.n_groups,
            "rows": [row.to_dict() for row in self.rows],
            "family": {"tests": list(self.family), "test": TESTS[self.scope], "adjusted": "Holm", "level": ALPHA},
            "rules": {
                "difference": "candidate less reference, the mean over cases, then classes, of each",
                "not_applicable": "undefined or infinite on one side: left out on both, counted",
                "interval": INTERVALS[self.scope],
                "test": f"none below {MIN_GROUPS} groups; no p-value below {MIN_GROUPS_P}",
                "verdict": f"better: Holm's p below {ALPHA:g} and 0 outside the interval",
            },
            "notes": list(self.notes),
        }

    def table(self) -> Iterator[str]:
        """Lines for a terminal: a row each, then each in words, then the family and what it is about."""
        head = ("", "reference", "candidate", "difference", "up", "down", "p (Holm)", "cases")
        yield from _columns([head, *(_cells(row, self.n_cases) for row in self.rows)])
        yield from (f"{row.name}: {row.sentence}" for row in self.rows)
        if self.family:
            least = smallest_p(self.n_groups) * len(self.family)
            yield f"family of {len(self.family)}, {ALPHA:.0%} for all together (Holm): {', '.join(self.family)}"
            yield f"test: {TESTS[self.scope]}"
            if self.scope == "models" and least >= ALPHA:
                yield f"{self.n_groups} groups cannot show a difference in {len(self.family)} tests: p >= {least:.3f}"
        if self.n_groups < MIN_GROUPS:
            yield f"no interval and no test below {MIN_GROUPS} groups; there are {self.n_groups}"
        elif self.n_groups < MIN_GROUPS_P:
            yield f"no p-value below {MIN_GROUPS_P} groups; there are {self.n_groups}"
        yield from self.notes
        yield f"about {self.statement}"


def compare(
    reference: Side, candidate: Side, metrics: Sequence[str], *, label: str, notes: Sequence[str] = ()
) -> Comparison:
    """Compare two sides.

    Args:
        reference: Tables of one run, or of several that are seeds of one method.
        candidate: Likewise; a difference is candidate less reference.
        metrics: Columns of the tables.
        label: What the result must call itself.
        notes: What else must be told.

    Raises:
        UsageError: A metric of which it is not known which way is better.
        DataError: The tables are of different cases, people, classes, labels or rules, or lack a metric.
    """
    unknown = [metric for metric in metrics if metric not in BETTER]
    if unknown or not metrics or len(set(metrics)) < len(metrics):
        raise UsageError(
            f"no metric to compare by: {', '.join(unknown)}" if unknown else "each metric is named once",
            where="metrics",
            why="of these it is known which way is better: " + ", ".join(BETTER),
            mend="metrics=[dice]",
        )
    require_same_cases([*reference, *candidate])
    groups, classes = reference[0].groups, reference[0].classes
    found: list[tuple[str, str, Difference, tuple[float, float]]] = []
    cases: list[CaseDifference] = []
    for metric in metrics:
        a, b = (np.stack([table.values(metric, classes) for table in side]) for side in (reference, candidate))
        for name, columns in _classes_and_mean(classes):
            difference = paired_difference(a[:, :, columns], b[:, :, columns], list(groups.values()))
            infinite = (_infinite(a[:, :, columns]), _infinite(b[:, :, columns]))
            found.append((metric, name, difference, infinite))
        mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
        cases += [
            CaseDifference(case, group, name, metric, float(mean_a[i, k]), float(mean_b[i, k]))
            for i, (case, group) in enumerate(groups.items())
            for k, name in enumerate(classes)
        ]
    tested = [k for k, one in enumerate(found) if math.isfinite(one[2].p)]
    adjusted = dict(zip(tested, holm([found[k][2].p for k in tested]), strict=True))
    return Comparison(
        label=label,
        scope=scope_of(len(reference), len(candidate)),
        reference=tuple(reference),
        candidate=tuple(candidate),
        rows=tuple(
            Row(metric, name, BETTER[metric], difference, float(adjusted.get(k, math.nan)), infinite)
            for k, (metric, name, difference, infinite) in enumerate(found)
        ),
        cases=tuple(cases),
        notes=(*notes, *inference_notes([*reference, *candidate])),
    )


def _classes_and_mean(classes: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Each class with its column, and the mean of all where there are several."""
    each = [(name, [k]) for k, name in enumerate(classes)]
    return each + ([(MEAN, list(range(len(classes))))] if len(classes) > 1 else [])


def _infinite(values: Float[np.ndarray, "S N K"]) -> float:
    """Cases in which any class is infinite, a mean over the seeds."""
    return float(np.isinf(values).any(axis=2).sum(axis=1).mean())


def _facts(table: StoredTable) -> dict[str, Any]:
    known = {key: table.facts.get(key) for key in ("label", "subset", "checkpoint")}
    return {"run": table.run, "folder": str(table.folder), **known}


def _cells(row: Row, n_cases: int) -> tuple[str, ...]:
    interval = row.difference.interval
    if interval.n == 0:
        return (row.name, "n/a", "n/a", "n/a", "-", "-", "-", f"0 of {n_cases}")
    limits = f" [{interval.low:+.4f}, {interval.high:+.4f}]" if interval.published else ""
    cases = f"{interval.n}" if interval.n == n_cases else f"{interval.n} of {n_cases}"
    groups = "" if interval.n == interval.n_groups else f" ({interval.n_groups} groups)"
    p = "-" if row.published_p is None else f"{row.published_p:.2g}"
    means = (f"{row.difference.reference:.4f}", f"{row.difference.candidate:.4f}")
    signs = (str(row.difference.up), str(row.difference.down))
    return (row.name, *means, f"{interval.mean:+.4f}{limits}", *signs, p, cases + groups)


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None

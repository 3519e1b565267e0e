"""Means, intervals and paired differences over people, from per-case tables of several seeds.

The seeds of a contender are averaged case by case first: what remains varies between people, which is what an
interval over people is about. How far the seeds lie apart is told beside it.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.accuracy.scoring import CaseScore
from segkit.metrics.uncertainty import Interval, mean_interval


@dataclass(frozen=True)
class Sample:
    """One value a case, with the person it belongs to.

    Args:
        cases: Ids, sorted.
        groups: The person of each.
        values: The value of each.
    """

    cases: tuple[str, ...]
    groups: tuple[str, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Spread:
    """How far the seeds lie apart.

    Args:
        means: Mean over the cases, a seed.
        deviation: Their standard deviation (n - 1); NaN of one seed.
    """

    means: tuple[float, ...]
    deviation: float


def over_seeds(tables: Sequence[Sequence[CaseScore]]) -> Sample:
    """Foreground Dice of each case, averaged over the seeds.

    Args:
        tables: One per-case table a seed.

    Raises:
        ValueError: No table; the tables hold different cases, or give a case different people.
    """
    if not tables:
        raise ValueError("no table to average")
    by_seed = [{row.case: row for row in table} for table in tables]
    first = by_seed[0]
    for seed in by_seed[1:]:
        if {case: row.group for case, row in seed.items()} != {case: row.group for case, row in first.items()}:
            raise ValueError("the seeds were scored on different cases or people")
    cases = tuple(sorted(first))
    values = tuple(statistics.fmean(seed[case].mean for seed in by_seed) for case in cases)
    return Sample(cases, tuple(first[case].group for case in cases), values)


def foreground_dice(tables: Sequence[Sequence[CaseScore]], *, level: float = 0.95) -> Interval:
    """Mean over the cases with a t interval by person, see `segkit.metrics.uncertainty.macro_interval`."""
    sample = over_seeds(tables)
    return mean_interval(sample.values, sample.groups, level=level)


def difference(ours: Sample, peer: Sample) -> Sample:
    """Ours less theirs, case by case.

    Raises:
        ValueError: They hold different cases or people.
    """
    if (ours.cases, ours.groups) != (peer.cases, peer.groups):
        raise ValueError("a paired difference takes the same cases of the same people on both sides")
    return Sample(ours.cases, ours.groups, tuple(a - b for a, b in zip(ours.values, peer.values, strict=True)))


def paired_difference(
    ours: Sequence[Sequence[CaseScore]], peer: Sequence[Sequence[CaseScore]], *, level: float = 0.95
) -> Interval:
    """Mean over the cases of ours less theirs with a t interval by person; seeds are averaged on each side first."""
    sample = difference(over_seeds(ours), over_seeds(peer))
    return mean_interval(sample.values, sample.groups, level=level)


def spread(tables: Mapping[int, Sequence[CaseScore]]) -> Spread:
    """Mean over the cases of every seed, in the order of the seeds, and their standard deviation."""
    means = tuple(statistics.fmean(row.mean for row in tables[seed]) for seed in sorted(tables))
    return Spread(means, statistics.stdev(means) if len(means) > 1 else math.nan)

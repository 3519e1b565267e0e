"""Guessing whether several cases come from one person, where nobody said so."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from scipy.special import betainc

_NEAR = 0.10
_SIGNIFICANT = 1e-3
_NUMBER = re.compile(r"(.*?)(\d+)\D*")


@dataclass(frozen=True)
class LikelyPairs:
    """Neighbouring cases whose intensities agree more often than those of any two cases do.

    Args:
        pairs: Ids of the cases.
        compared: Neighbours that were compared.
        by_chance: Share of all pairs of cases that agree.
    """

    pairs: tuple[tuple[str, str], ...]
    compared: int
    by_chance: float


def likely_pairs(scales: Mapping[str, float]) -> LikelyPairs | None:
    """Pairs of neighbouring ids (7 and 8) of near-equal intensity scale, if there are too many to be chance.

    Magnetic resonance has no absolute unit: two scans of one session share a scale, two people rarely do. Pairs that
    begin at odd and at even numbers are judged apart, since a person with two cases takes one kind. What agrees by
    chance is taken from all pairs of cases, so that data on one scale (CT, photographs) raises no suspicion.

    Args:
        scales: Case id to its median intensity.

    Returns:
        None where the neighbours agree no more often than chance (one-sided binomial test, p > 0.001, for the better
        of the two kinds).
    """
    numbered = {(match[1], int(match[2])): case_id for case_id in scales if (match := _NUMBER.fullmatch(case_id))}
    ids = sorted(scales)
    every = [_near(scales[a], scales[b]) for k, a in enumerate(ids) for b in ids[:k]]
    if not every:
        return None
    chance = sum(every) / len(every)
    found: list[tuple[float, LikelyPairs]] = []
    for parity in (0, 1):
        neighbours = [
            (case_id, numbered[prefix, number + 1])
            for (prefix, number), case_id in sorted(numbered.items())
            if number % 2 == parity and (prefix, number + 1) in numbered
        ]
        near = tuple(pair for pair in neighbours if _near(scales[pair[0]], scales[pair[1]]))
        if not near:
            continue
        found.append((_at_least(len(near), len(neighbours), chance), LikelyPairs(near, len(neighbours), chance)))
    p, best = min(found, key=lambda pair: pair[0], default=(1.0, None))
    return best if p <= _SIGNIFICANT else None


def _at_least(successes: int, trials: int, chance: float) -> float:
    """P(X >= k) of a binomial X for k >= 1: the regularised incomplete beta function I_p(k, n - k + 1).

    What `scipy.stats.binomtest` gives, whose import takes longer than checking a hundred cases.
    """
    return float(betainc(successes, trials - successes + 1, chance))


def _near(first: float, second: float) -> bool:
    return abs(first - second) <= _NEAR * max(abs(first), abs(second))

"""Whether one number sorts the cases as another does: Spearman's rank correlation with an interval."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri
from scipy.stats import rankdata

MIN_GROUPS = 10
"""Below this many groups no interval is published: the approximation does not hold."""


class RankCorrelation(NamedTuple):
    """Spearman's rank correlation.

    Args:
        rho: -1 to 1; NaN where one of the two does not vary, or below three cases.
        low: Lower limit; NaN where no interval is published.
        high: Upper limit, likewise.
        n: Cases where both are defined.
        n_groups: Groups (people) these cases belong to.
    """

    rho: float
    low: float
    high: float
    n: int
    n_groups: int

    @property
    def published(self) -> bool:
        """Whether there is an interval to be shown."""
        return not math.isnan(self.low)

    def __str__(self) -> str:
        """`0.71 [0.45, 0.86] n=57 groups=34`."""
        if math.isnan(self.rho):
            return f"n/a n={self.n}"
        interval = f" [{self.low:.2f}, {self.high:.2f}]" if self.published else " [none]"
        people = "" if self.n == self.n_groups else f" groups={self.n_groups}"
        return f"{self.rho:.2f}{interval} n={self.n}{people}"


def rank_correlation(
    x: Sequence[float] | Float[np.ndarray, " N"],
    y: Sequence[float] | Float[np.ndarray, " N"],
    groups: Sequence[str],
    *,
    level: float = 0.95,
) -> RankCorrelation:
    r"""Spearman's rank correlation over cases, with an interval that counts groups.

        tanh( artanh rho -+ z sqrt((1 + rho^2 / 2) / (G - 3)) )

    G is the number of groups, not of cases: the cases of one person are no independent pairs, and how many they are
    worth is between G and n. The interval is therefore rather too wide than too narrow. There is none below
    `MIN_GROUPS` groups, and none where the ranks agree completely (the formula would give a point).

    Args:
        x: One value a case; NaN leaves the case out.
        y: The other.
        groups: Group of each case.
        level: Confidence level.

    Raises:
        ValueError: Different numbers of values and groups.

    Reference: Bonett and Wright, Sample size requirements for estimating Pearson, Kendall and Spearman correlations,
    Psychometrika 2000.
    """
    if not len(x) == len(y) == len(groups):
        raise ValueError(f"{len(x)} and {len(y)} values, {len(groups)} groups")
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    defined = ~(np.isnan(a) | np.isnan(b))
    n, n_groups = int(defined.sum()), len(set(np.asarray(groups, dtype=str)[defined].tolist()))
    nan = float("nan")
    if n < 3:
        return RankCorrelation(nan, nan, nan, n, n_groups)
    first, second = (rankdata(values[defined]) - (n + 1) / 2 for values in (a, b))
    scale = math.sqrt(float(first @ first) * float(second @ second))
    if scale == 0:
        return RankCorrelation(nan, nan, nan, n, n_groups)
    rho = float(first @ second) / scale
    if n_groups < MIN_GROUPS or abs(rho) > 1 - 1e-12:
        return RankCorrelation(max(-1.0, min(1.0, rho)), nan, nan, n, n_groups)
    half = float(ndtri(0.5 + level / 2)) * math.sqrt((1 + rho * rho / 2) / (n_groups - 3))
    return RankCorrelation(rho, math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half), n, n_groups)

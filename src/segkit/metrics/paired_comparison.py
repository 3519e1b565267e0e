r"""Difference of two models, or of two methods, on the same cases of the same people.

With x_msik the value of seed s of side m (reference a, candidate b) in case i and class k, the difference is that of
the means that are reported of each side, D = mean_b - mean_a: over cases, then classes, then seeds. A case that is
undefined or infinite on either side is left out of both.

What it can be said of depends on the number of seeds:

    models     fewer than `MIN_SEEDS` on a side. These weights, on new people. Interval: t by group over the differences
               (`metrics.uncertainty`). Test: Wilcoxon's signed ranks of the people's mean differences.
    methods    `MIN_SEEDS` or more on both. New trainings by the same recipe on the same training data, on new people.
               People and seeds are crossed factors and both are sampled. Each person g and seed s has a pseudo-value

                   z_msg = theta_ms + G u_msg,    theta_ms = mean of seed s,    u_msg = influence of person g on it

               which is the person's own mean where all people have equally many cases. By analysis of variance,

                   V = V_p + max(0, V_a - E_a) + max(0, V_b - E_b)
                   V_p = var_g( z_b.g - z_a.g ) / G              people; holds the interaction of person and seed too
                   V_m = var_s( theta_ms ) / S_m                 seeds of side m; holds its interaction a second time
                   E_m = MS( z_msg - z_ms. - z_m.g + z_m.. ) / (S_m G)        which is taken away again

               and D -+ t_nu sqrt(V), nu after Satterthwaite: V^2 / ( V_p^2 / (G - 1) + sum_m V_m^2 / (S_m - 1) ), the
               sum over the sides whose term is not 0. Test: the t of the same.

Tests of several classes and metrics are one family, adjusted by Holm's method.

References: Wilcoxon, Biometrics Bulletin 1945; Pratt, JASA 1959 (zeros); Holm, Scandinavian Journal of Statistics 1979;
Satterthwaite, Biometrics Bulletin 1946; Obuchowski and Rockette, Communications in Statistics 1995, and Hillis,
Statistics in Medicine 2007, on readers and cases, which are what seeds and people are here.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr, stdtr, stdtrit

from segkit.metrics.uncertainty import Interval, macro_interval

Scope = Literal["models", "methods"]

MIN_SEEDS = 3
"""Seeds a side from which something is said of methods; of two, one degree of freedom says next to nothing."""
MIN_GROUPS_P = 20
"""Below this many groups no p-value is published."""

_EXACT = 200
"""Groups up to which the distribution of the signed ranks is counted out; beyond, the normal one is the same."""
_DECIMALS = 12
"""Differences are ranked after rounding to these: what differs by rounding alone is a tie."""


class Difference(NamedTuple):
    """Candidate less reference.

    Args:
        reference: Mean of the reference over the cases that count.
        candidate: Mean of the candidate over the same cases.
        interval: Mean difference with its interval, cases and groups.
        up: Groups (people) whose mean difference is positive.
        down: Groups whose mean difference is negative; the others are equal.
        p: Two-sided, not adjusted; NaN below `uncertainty.MIN_GROUPS` groups, where there is no test.
    """

    reference: float
    candidate: float
    interval: Interval
    up: int
    down: int
    p: float


def scope_of(reference_seeds: int, candidate_seeds: int) -> Scope:
    """What a comparison of so many seeds may speak of."""
    return "methods" if min(reference_seeds, candidate_seeds) >= MIN_SEEDS else "models"


def paired_difference(
    reference: Float[np.ndarray, "A N K"],
    candidate: Float[np.ndarray, "B _ _"],
    groups: Sequence[str],
    *,
    level: float = 0.95,
) -> Difference:
    """Difference of the means with interval and test, of models or methods by the number of seeds.

    Args:
        reference: Values by seed, case and class; what is not finite is not applicable.
        candidate: Likewise, of the same cases and classes.
        groups: Group (person) of each case.
        level: Confidence level.

    Raises:
        ValueError: The sides differ in cases or classes, or groups in number.
    """
    if reference.shape[1:] != candidate.shape[1:]:
        raise ValueError(f"(cases, classes) are {reference.shape[1:]} and {candidate.shape[1:]}")
    defined = np.isfinite(reference).all(axis=0) & np.isfinite(candidate).all(axis=0)
    a, b = (np.where(defined, side, np.nan) for side in (reference, candidate))
    difference = b.mean(axis=0) - a.mean(axis=0)
    interval = macro_interval(difference, groups, level=level)
    by_group = group_means(difference, groups)
    if scope_of(len(a), len(b)) == "methods" and interval.n_groups > 1:
        interval, p = _two_level(a, b, interval, groups, level=level)
    else:
        p = signed_rank_p(by_group)
    signs = np.sign(np.round(by_group, _DECIMALS))
    mean_a, mean_b = macro_interval(a.mean(axis=0), groups).mean, macro_interval(b.mean(axis=0), groups).mean
    return Difference(
        mean_a, mean_b, interval, int((signs > 0).sum()), int((signs < 0).sum()), p if interval.published else math.nan
    )


def group_means(values: Float[np.ndarray, "N K"], groups: Sequence[str]) -> Float[np.ndarray, " G"]:
    """Mean of each group over its cases, of a case over its classes; NaN is not counted, nor a group without values."""
    defined = ~np.isnan(values)
    counted = defined.any(axis=1)
    by_case = np.where(defined, values, 0.0).sum(axis=1)[counted] / defined.sum(axis=1)[counted]
    _, member = np.unique(np.asarray(groups, dtype=str)[counted], return_inverse=True)
    return np.bincount(member, weights=by_case) / np.bincount(member)


def signed_rank_p(differences: Float[np.ndarray, " G"]) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test, exact with zeros and ties.

    The null distribution is that of the signs, given the sizes: each difference is as likely to be negative as
    positive. Equal sizes share the mean of their ranks. Zeros are ranked with the others and then bear no sign (Pratt),
    so that models which agree on most people do not look different by the few they disagree on. All zero: 1.

    Args:
        differences: One a group; none is NaN.
    """
    rounded = np.round(differences, _DECIMALS)
    _, place, count = np.unique(np.abs(rounded), return_inverse=True, return_counts=True)
    signed = rounded != 0
    # Twice the mean rank of each size, a whole number.
    ranks = (2 * np.cumsum(count) - count + 1)[place][signed]
    if not len(ranks):
        return 1.0
    total, positive = int(ranks.sum()), int(ranks[rounded[signed] > 0].sum())
    smaller = min(positive, total - positive)
    if len(ranks) > _EXACT:
        return min(1.0, 2 * float(ndtr((smaller - total / 2) / (np.sqrt(np.square(ranks.astype(float)).sum()) / 2))))
    chance = np.zeros(total + 1)
    chance[0] = 1.0
    for rank in ranks:
        chance[rank:] += chance[:-rank].copy()
        chance /= 2
    return min(1.0, 2 * float(chance[: smaller + 1].sum()))


def smallest_p(n_groups: int) -> float:
    """The smallest two-sided p-value that signed ranks of so many groups can have: all differences of one sign."""
    return min(1.0, 2.0 ** (1 - n_groups))


def holm(p: Sequence[float] | Float[np.ndarray, " M"]) -> Float[np.ndarray, " M"]:
    """p-values adjusted for their family: the j-th smallest of m becomes max_{i <= j} min(1, (m - i + 1) p_i)."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    return adjusted


def _two_level(
    a: Float[np.ndarray, "A N K"],
    b: Float[np.ndarray, "B N K"],
    by_group: Interval,
    groups: Sequence[str],
    *,
    level: float,
) -> tuple[Interval, float]:
    """Interval and p-value over people and seeds; `by_group` gives mean and counts. See the formulas above."""
    z_a, z_b = _pseudo_values(a, groups), _pseudo_values(b, groups)
    n_groups = z_a.shape[1]
    people = float((z_b.mean(axis=0) - z_a.mean(axis=0)).var(ddof=1)) / n_groups
    variance, squares = people, people**2 / (n_groups - 1)
    for z in (z_a, z_b):
        seeds = float(z.mean(axis=1).var(ddof=1)) / len(z)
        rest = z - z.mean(axis=1, keepdims=True) - z.mean(axis=0) + z.mean()
        interaction = float(np.square(rest).sum()) / ((len(z) - 1) * (n_groups - 1)) / z.size
        if seeds > interaction:
            variance += seeds - interaction
            squares += seeds**2 / (len(z) - 1)
    mean = by_group.mean
    if variance == 0:
        return by_group._replace(low=mean, high=mean), float(mean == 0)
    freedom, error = variance**2 / squares, variance**0.5
    half = float(stdtrit(freedom, 0.5 + level / 2)) * error
    return by_group._replace(low=mean - half, high=mean + half), 2 * float(stdtr(freedom, -abs(mean) / error))


def _pseudo_values(x: Float[np.ndarray, "S N K"], groups: Sequence[str]) -> Float[np.ndarray, "S G"]:
    """Mean of each seed plus G times the influence of each group on it; NaN in the same places of every seed."""
    x = x[:, :, ~np.isnan(x[0]).all(axis=0)]
    defined = ~np.isnan(x[0])
    counted = defined.any(axis=1)
    _, member = np.unique(np.asarray(groups, dtype=str)[counted], return_inverse=True)
    means = np.nanmean(x, axis=1, keepdims=True)
    influence = np.where(defined, x - means, 0.0) / (x.shape[2] * defined.sum(axis=0))
    belongs = np.eye(int(member.max()) + 1)[member]
    by_group: Float[np.ndarray, "S G"] = influence.sum(axis=2)[:, counted] @ belongs
    values: Float[np.ndarray, "S G"] = means.mean(axis=(1, 2))[:, None] + belongs.shape[1] * by_group
    return values

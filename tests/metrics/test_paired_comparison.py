import itertools
import math

import numpy as np
import pytest
from scipy import stats

from segkit.metrics.paired_comparison import (
    group_means,
    holm,
    paired_difference,
    scope_of,
    signed_rank_p,
    smallest_p,
)
from segkit.metrics.uncertainty import macro_interval


def people(n, cases=1):
    return [f"p{k:03d}" for k in range(n) for _ in range(cases)]


def dice(seed, shape):
    return np.random.default_rng(seed).normal(0.8, 0.05, shape)


def signs_counted_out(differences):
    """Two-sided p of the signed ranks over all 2^n signs, zeros ranked and then without sign."""
    ranks = stats.rankdata(np.abs(differences))[differences != 0]
    positive = ranks[differences[differences != 0] > 0].sum()
    smaller = min(positive, ranks.sum() - positive)
    sums = [np.dot(ranks, signs) for signs in itertools.product((0, 1), repeat=len(ranks))]
    return min(1.0, 2 * np.mean(np.asarray(sums) <= smaller))


def test_one_seed_and_one_case_a_person_are_scipys_paired_t_and_wilcoxon():
    a, b = dice(0, (1, 14, 1)), dice(1, (1, 14, 1))
    found = paired_difference(a, b, people(14))
    expected = stats.ttest_rel(b.ravel(), a.ravel()).confidence_interval(0.95)
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(expected))
    assert found.p == pytest.approx(stats.wilcoxon(b.ravel(), a.ravel(), method="exact").pvalue)
    assert (found.reference, found.candidate) == pytest.approx((a.mean(), b.mean()))
    assert found.interval.mean == pytest.approx(found.candidate - found.reference)
    assert (found.up, found.down) == (int((b > a).sum()), int((b < a).sum()))


def test_cases_and_seeds_of_a_person_are_averaged_before_the_ranks():
    a, b = dice(2, (2, 30, 2)), dice(3, (1, 30, 2))
    groups = people(10, cases=3)
    means = (b.mean(axis=0) - a.mean(axis=0)).reshape(10, 6).mean(axis=1)
    found = paired_difference(a, b, groups)
    assert found.p == pytest.approx(stats.wilcoxon(means, method="exact").pvalue)
    low, high = stats.t.interval(0.95, df=9, loc=means.mean(), scale=stats.sem(means))
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high))
    assert (found.interval.n, found.interval.n_groups) == (30, 10)


def test_group_means_by_hand():
    nan = float("nan")
    values = np.array([[0.2, 0.4], [nan, 0.6], [nan, nan], [1.0, nan]])
    assert group_means(values, ["p", "p", "q", "r"]) == pytest.approx([(0.3 + 0.6) / 2, 1.0])


@pytest.mark.parametrize(
    "differences",
    [
        [0.1, 0.2, -0.3, 0.4, 0.5, 0.6],
        [0.1, 0.1, -0.1, 0.2, 0.2, 0.3, -0.3],
        [0.0, 0.0, 0.1, 0.2, -0.3, 0.4, 0.4],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.3],
        [-0.1, -0.2, -0.3, -0.4, -0.5, -0.6, -0.7],
    ],
)
def test_signed_ranks_are_exact_with_ties_and_zeros(differences):
    d = np.array(differences)
    assert signed_rank_p(d) == pytest.approx(signs_counted_out(d))
    assert signed_rank_p(-d) == pytest.approx(signed_rank_p(d))


def test_signed_ranks_of_large_samples_are_scipys():
    rng = np.random.default_rng(4)
    for n, tolerance in ((150, 1e-9), (400, 1e-9)):
        d = rng.normal(0.1, 1.0, n)
        method = "exact" if n <= 200 else "asymptotic"
        assert signed_rank_p(d) == pytest.approx(stats.wilcoxon(d, method=method).pvalue, rel=tolerance)
    d = rng.integers(-3, 5, 400).astype(float)
    assert signed_rank_p(d) == pytest.approx(
        stats.wilcoxon(d, zero_method="pratt", correction=False, method="asymptotic").pvalue, rel=1e-9
    )


def test_counting_out_and_the_normal_distribution_meet():
    d = np.random.default_rng(5).normal(0.1, 1.0, 200)
    assert signed_rank_p(d) == pytest.approx(stats.wilcoxon(d, method="asymptotic").pvalue, abs=2e-3)


def test_no_difference_at_all_and_the_smallest_p():
    assert signed_rank_p(np.zeros(30)) == 1.0
    assert signed_rank_p(np.arange(1.0, 7.0)) == smallest_p(6) == 2 / 64
    a = dice(6, (1, 8, 2))
    found = paired_difference(a, a.copy(), people(8))
    assert (found.p, found.interval.mean, found.interval.low, found.interval.high) == (1.0, 0.0, 0.0, 0.0)
    assert (found.up, found.down) == (0, 0)


def test_what_differs_by_rounding_alone_is_no_difference():
    shares = np.full(8, 0.1) + np.full(8, 0.2) - 0.3  # 5.6e-17 each
    assert (shares > 0).all()
    assert signed_rank_p(shares) == 1.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.6]) == pytest.approx([0.8, 0.8])
    assert holm([0.03]) == pytest.approx([0.03])
    assert len(holm([])) == 0


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_order_of_cases_and_seeds_does_not_matter(seeds):
    a, b, groups = dice(7, (seeds, 16, 2)), dice(8, (seeds, 16, 2)), people(8, cases=2)
    order = np.random.default_rng(9).permutation(16)
    shuffled = paired_difference(a[::-1, order], b[::-1, order], [groups[k] for k in order])
    assert np.hstack(shuffled) == pytest.approx(np.hstack(paired_difference(a, b, groups)))


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_sides_change_places_with_the_sign(seeds):
    a, b, groups = dice(10, (seeds, 16, 2)), dice(11, (seeds + 1, 16, 2)), people(8, cases=2)
    there, back = paired_difference(a, b, groups), paired_difference(b, a, groups)
    mirrored = (-back.interval.mean, -back.interval.high, -back.interval.low)
    assert there.interval[:3] == pytest.approx(mirrored)
    assert there.p == pytest.approx(back.p)
    assert (there.up, there.down) == (back.down, back.up)
    assert (there.reference, there.candidate) == pytest.approx((back.candidate, back.reference))


@pytest.mark.parametrize("seeds", [1, 3])
def test_what_all_share_leaves_the_difference_and_a_gain_moves_it(seeds):
    a, b, groups = dice(12, (seeds, 10, 1)), dice(13, (seeds, 10, 1)), people(10)
    hard = 5 * dice(14, (1, 10, 1))
    plain, shared = paired_difference(a, b, groups), paired_difference(a + hard, b + hard + 0.25, groups)
    assert np.asarray(shared.interval[:3]) - 0.25 == pytest.approx(np.asarray(plain.interval[:3]))


def test_undefined_or_infinite_on_one_side_is_left_out_on_both():
    a, b = dice(15, (1, 9, 1)), dice(16, (1, 9, 1))
    a[0, 0, 0], b[0, 1, 0] = np.nan, np.inf
    found = paired_difference(a, b, people(9))
    assert np.hstack(found) == pytest.approx(np.hstack(paired_difference(a[:, 2:], b[:, 2:], people(9)[2:])))
    assert (found.interval.n, found.interval.n_groups) == (7, 7)


def test_nothing_defined_and_few_people():
    nothing = paired_difference(np.full((1, 8, 2), np.nan), dice(17, (1, 8, 2)), people(8))
    assert nothing.interval.n == 0
    assert math.isnan(nothing.p)
    assert math.isnan(paired_difference(dice(18, (1, 5, 1)), dice(19, (1, 5, 1)), people(5)).p)
    assert not math.isnan(paired_difference(dice(18, (1, 6, 1)), dice(19, (1, 6, 1)), people(6)).p)
    alone = paired_difference(dice(18, (3, 4, 1)), dice(19, (3, 4, 1)), ["p"] * 4)
    assert math.isnan(alone.interval.low)
    assert math.isnan(alone.p)


def test_methods_take_three_seeds_on_both_sides():
    assert {scope_of(3, 3), scope_of(5, 3)} == {"methods"}
    assert {scope_of(1, 1), scope_of(2, 2), scope_of(2, 9), scope_of(9, 1)} == {"models"}


def test_two_levels_by_hand():
    """Three seeds of six people, the analysis of variance written out with loops."""
    z = {"a": dice(20, (3, 6)), "b": dice(21, (4, 6))}
    person = [np.mean(z["b"][:, g]) - np.mean(z["a"][:, g]) for g in range(6)]
    total = np.var(person, ddof=1) / 6
    squares = total**2 / 5
    for side in z.values():
        seeds = len(side)
        of_seeds = np.var([np.mean(side[s]) for s in range(seeds)], ddof=1) / seeds
        rest = sum(
            (side[s, g] - side[s].mean() - side[:, g].mean() + side.mean()) ** 2 for s in range(seeds) for g in range(6)
        )
        term = of_seeds - rest / ((seeds - 1) * 5) / (seeds * 6)
        if term > 0:
            total += term
            squares += of_seeds**2 / (seeds - 1)
    mean, freedom = np.mean(person), total**2 / squares
    found = paired_difference(z["a"][:, :, None], z["b"][:, :, None], people(6))
    assert found.interval[:3] == pytest.approx((mean, *stats.t.interval(0.95, freedom, mean, total**0.5)))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(mean) / total**0.5, freedom))


def test_seeds_that_are_all_alike_leave_the_interval_over_people():
    a, b, groups = dice(22, (1, 20, 2)), dice(23, (1, 20, 2)), people(10, cases=2)
    found = paired_difference(np.repeat(a, 3, axis=0), np.repeat(b, 4, axis=0), groups)
    assert found.interval == pytest.approx(macro_interval(b[0] - a[0], groups))


def test_people_who_are_all_alike_leave_welchs_test_of_the_seeds():
    a, b = dice(24, 4), dice(25, 3)
    found = paired_difference(*(np.tile(side[:, None, None], (1, 12, 2)) for side in (a, b)), people(12))
    expected = stats.ttest_ind(b, a, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval[1:3] == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_seeds_widen_the_interval_of_methods():
    """Seeds of which each is shifted as a whole: the people alone would not see it."""
    a, b, groups = dice(26, (1, 40, 1)), dice(27, (1, 40, 1)), people(40)
    shifts = np.array([-0.1, 0.0, 0.1])[:, None, None]
    alone, shifted = paired_difference(a, b, groups), paired_difference(a + shifts, b + shifts, groups)
    assert shifted.interval.mean == pytest.approx(alone.interval.mean)
    assert shifted.interval.high - shifted.interval.low > 5 * (alone.interval.high - alone.interval.low)


def test_two_levels_with_unequal_groups_and_a_missing_class():
    """Pseudo-values: each seed's mean is the reported one, and people's terms are those of the interval of one seed."""
    a, b = dice(28, (3, 11, 2)), dice(29, (3, 11, 2))
    groups = [f"p{k}" for k in (0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7)]
    a[:, 4:6, 0] = np.nan
    found = paired_difference(a, b, groups)
    both = np.isfinite(a[0])
    table = np.where(both, b.mean(axis=0) - np.where(both, a, np.nan).mean(axis=0), np.nan)
    over_people = macro_interval(table, groups)
    assert found.interval.mean == pytest.approx(over_people.mean)
    assert found.interval[3:] == over_people[3:]
    assert found.interval.high - found.interval.low >= over_people.high - over_people.low - 1e-12


def test_sides_of_other_cases_are_refused():
    with pytest.raises(ValueError, match="cases, classes"):
        paired_difference(dice(0, (1, 8, 1)), dice(1, (1, 7, 1)), people(8))
    with pytest.raises(ValueError, match="8 values, but 7 groups"):
        paired_difference(dice(0, (1, 8, 1)), dice(1, (1, 8, 1)), people(7))

import math

import numpy as np
import pytest
from benchmarks.accuracy.scoring import CaseScore
from benchmarks.accuracy.statistics import difference, foreground_dice, over_seeds, paired_difference, spread
from scipy import stats


def table(values, groups=None):
    """One class a case."""
    groups = groups or [f"p{k}" for k in range(len(values))]
    return [CaseScore(f"c{k:02d}", group, (float(v),)) for k, (v, group) in enumerate(zip(values, groups, strict=True))]


def random(shape, seed):
    return np.random.default_rng(seed).normal(0.85, 0.05, shape)


def test_a_case_is_the_mean_of_its_classes_and_seeds():
    seeds = [[CaseScore("a", "p", (0.2, 0.4)), CaseScore("b", "q", (1.0, 0.0))] for _ in range(2)]
    seeds[1][0] = CaseScore("a", "p", (0.6, 0.8))
    assert over_seeds(seeds).values == pytest.approx((0.5, 0.5))


def test_the_order_of_the_rows_does_not_matter():
    first, second = table(random(9, 0)), table(random(9, 1))
    assert over_seeds([first, second]) == over_seeds([first[::-1], second])


def test_one_case_a_person_is_scipys_t_interval():
    x = random((3, 12), 2)
    found = foreground_dice([table(row) for row in x])
    values = x.mean(axis=0)
    low, high = stats.t.interval(0.95, df=11, loc=values.mean(), scale=stats.sem(values))
    assert (found.mean, found.low, found.high) == pytest.approx((values.mean(), low, high))


def test_a_paired_difference_is_scipys_paired_t_interval():
    a, b = random((3, 14), 3), random((2, 14), 4)
    found = paired_difference([table(row) for row in a], [table(row) for row in b])
    expected = stats.ttest_rel(a.mean(axis=0), b.mean(axis=0)).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(expected))


def test_two_cases_a_person_count_as_people():
    x, groups = random((10, 2), 5), [f"p{k // 2}" for k in range(20)]
    found = foreground_dice([table(x.ravel(), groups)])
    means = x.mean(axis=1)
    low, high = stats.t.interval(0.95, df=9, loc=means.mean(), scale=stats.sem(means))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert (found.n, found.n_groups) == (20, 10)


def test_people_with_one_and_two_cases_agree_with_a_bootstrap_over_people():
    rng = np.random.default_rng(6)
    cases = [1 + k % 2 for k in range(60)]
    person = rng.normal(0.0, 0.05, 60)
    groups = [f"p{k}" for k, n in enumerate(cases) for _ in range(n)]
    values = [0.8 + person[k] + rng.normal(0, 0.02) for k, n in enumerate(cases) for _ in range(n)]
    found = foreground_dice([table(values, groups)])
    sums = np.array([sum(v for v, g in zip(values, groups, strict=True) if g == f"p{k}") for k in range(60)])

    def mean_over_cases(total, count, axis):
        return total.sum(axis=axis) / count.sum(axis=axis)

    drawn = stats.bootstrap(
        (sums, np.array(cases, float)), mean_over_cases, paired=True, vectorized=True, n_resamples=4000, rng=rng
    ).confidence_interval
    assert found.mean == pytest.approx(np.mean(values))
    assert (found.low, found.high) == pytest.approx((drawn.low, drawn.high), abs=0.15 * (found.high - found.low))


def test_what_both_sides_share_leaves_the_paired_interval():
    shared, gain = 10 * random(30, 7), random(30, 8)
    narrow = paired_difference([table(shared + gain)], [table(shared)])
    alone = foreground_dice([table(gain)])
    assert tuple(narrow) == pytest.approx(tuple(alone))


def test_the_difference_turns_its_sign_with_the_sides():
    a, b = [table(random(8, 9))], [table(random(8, 10))]
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -back.high, -back.low))


def test_the_spread_of_the_seeds_is_their_standard_deviation():
    x = random((3, 6), 11)
    found = spread({2: table(x[2]), 0: table(x[0]), 1: table(x[1])})
    assert found.means == pytest.approx(tuple(x.mean(axis=1)))
    assert found.deviation == pytest.approx(np.std(x.mean(axis=1), ddof=1))
    assert math.isnan(spread({0: table(x[0])}).deviation)


def test_other_cases_or_people_are_refused():
    x = random(5, 12)
    with pytest.raises(ValueError, match="different cases"):
        over_seeds([table(x), table(x[:4])])
    with pytest.raises(ValueError, match="different cases"):
        over_seeds([table(x), table(x, ["p0"] * 5)])
    with pytest.raises(ValueError, match="same cases"):
        difference(over_seeds([table(x)]), over_seeds([table(x[:4])]))
    with pytest.raises(ValueError, match="no table"):
        over_seeds([])

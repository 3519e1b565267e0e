import numpy as np
import pytest
from scipy import stats

from segkit.metrics.uncertainty import clustered_mean, macro_interval, mean_interval


def people(n):
    return [f"p{i}" for i in range(n)]


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_one_case_a_group_is_scipys_t_interval(level):
    x = np.random.default_rng(0).normal(0.8, 0.1, 9)
    found = mean_interval(x, people(9), level=level)
    low, high = stats.t.interval(level, df=8, loc=x.mean(), scale=stats.sem(x))
    assert found.mean == pytest.approx(x.mean())
    assert (found.low, found.high) == pytest.approx((low, high))
    assert (found.n, found.n_groups) == (9, 9)


def test_equal_groups_are_scipys_t_interval_of_group_means():
    x = np.random.default_rng(1).normal(0.8, 0.1, (7, 3))
    found = mean_interval(x.ravel(), np.repeat(people(7), 3).tolist())
    means = x.mean(axis=1)
    assert (found.low, found.high) == pytest.approx(
        stats.t.interval(0.95, df=6, loc=means.mean(), scale=stats.sem(means))
    )
    assert (found.n, found.n_groups) == (21, 7)


def test_copies_of_a_person_do_not_narrow_the_interval():
    x = np.random.default_rng(2).normal(0.8, 0.1, 8)
    once = mean_interval(x, people(8))
    ten = mean_interval(np.repeat(x, 10), np.repeat(people(8), 10).tolist())
    assert ten[:3] == pytest.approx(once[:3])


def test_nan_is_not_counted():
    x = np.array([0.5, np.nan, 0.7, 0.9])
    assert mean_interval(x, people(4)) == pytest.approx(mean_interval(x[[0, 2, 3]], ["p0", "p2", "p3"]))


def test_few_groups():
    nothing = mean_interval([float("nan")], ["p"])
    assert np.isnan(nothing.mean)
    assert nothing.n == 0
    one = mean_interval([0.5, 0.7], ["p", "p"])
    assert one.mean == pytest.approx(0.6)
    assert np.isnan(one.low)
    assert np.isnan(one.high)
    assert not one.published
    five, six = mean_interval(np.linspace(0, 1, 5), people(5)), mean_interval(np.linspace(0, 1, 6), people(6))
    assert not five.published
    assert six.published
    assert "none" in str(five)
    assert "none" not in str(six)


def test_bounds_cut_the_interval_only():
    found = mean_interval([1.0, 1.0, 1.0, 1.0, 1.0, 0.8], people(6), bounds=(0.0, 1.0))
    assert found.high == 1.0
    assert found.low < found.mean < 1


def test_groups_and_values_must_pair():
    with pytest.raises(ValueError, match="2 values, but 1 groups"):
        mean_interval([0.1, 0.2], ["p"])


def test_macro_of_complete_table_is_the_interval_of_case_means():
    x = np.random.default_rng(3).normal(0.8, 0.1, (8, 3))
    assert macro_interval(x, people(8)) == pytest.approx(mean_interval(x.mean(axis=1), people(8)))


def test_macro_of_incomplete_table_is_the_mean_of_class_means():
    x = np.array([[0.2, np.nan, np.nan], [0.4, 1.0, np.nan], [np.nan, np.nan, np.nan]])
    found = macro_interval(x, people(3))
    assert found.mean == pytest.approx((0.3 + 1.0) / 2)
    assert (found.n, found.n_groups) == (2, 2)


def test_coverage_is_nominal():
    rng = np.random.default_rng(4)
    inside = 0
    for _ in range(1000):
        person = rng.normal(0.8, 0.05, 12)
        x = (person[:, None] + rng.normal(0, 0.02, (12, 2))).ravel()
        found = mean_interval(x, np.repeat(people(12), 2).tolist())
        inside += found.low <= 0.8 <= found.high
    # 95 % of 1000, four standard deviations of the binomial either side.
    assert 922 <= inside <= 978


def test_the_standard_error_is_that_of_the_interval():
    x = np.random.default_rng(5).normal(0.1, 0.2, (12, 2))
    x[3, 1] = np.nan
    groups = np.repeat(people(6), 2).tolist()
    found, interval = clustered_mean(x, groups), macro_interval(x, groups)
    assert (found.mean, found.n, found.n_groups) == (interval.mean, interval.n, interval.n_groups)
    assert interval.high - found.mean == pytest.approx(stats.t.ppf(0.975, 5) * found.standard_error)
    by_hand = clustered_mean(np.array([[1.0], [2.0], [6.0]]), people(3))
    assert by_hand.standard_error == pytest.approx(np.std([1, 2, 6], ddof=1) / np.sqrt(3))
    assert np.isnan(clustered_mean(np.ones((3, 1)), ["p"] * 3).standard_error)

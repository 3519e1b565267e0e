import math

import numpy as np
import pytest
from scipy import stats

from segkit.metrics.rank_correlation import rank_correlation


def people(n):
    return [f"p{i}" for i in range(n)]


def test_a_published_example():
    """R's statpsych::ci.spear, its own example: 0.8699639 [0.5840951, 0.9638297]."""
    y = np.array([21.0, 4, 9, 12, 35, 18, 10, 22, 24, 1, 6, 8, 13, 16, 19])
    x = np.array([67.0, 28, 30, 28, 52, 40, 25, 37, 44, 10, 14, 20, 28, 40, 51])
    found = rank_correlation(x, y, people(15))
    assert found[:3] == pytest.approx((0.8699639, 0.5840951, 0.9638297), abs=1e-6)
    assert str(found) == "0.87 [0.58, 0.96] n=15"


def test_rho_is_scipys_ties_and_gaps_included():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 8, 40).astype(float), rng.integers(0, 8, 40).astype(float)
    x[3], y[7] = np.nan, np.nan
    kept = ~np.isnan(x + y)
    found = rank_correlation(x, y, people(40))
    assert found.rho == pytest.approx(stats.spearmanr(x[kept], y[kept]).statistic)
    assert (found.n, found.n_groups) == (38, 38)


def test_people_are_counted_not_cases():
    rng = np.random.default_rng(1)
    x = rng.normal(size=30)
    y = x + rng.normal(size=30)
    alone = rank_correlation(x, y, people(30))
    pairs = rank_correlation(x, y, [f"p{i // 2}" for i in range(30)])
    assert pairs.rho == alone.rho
    assert pairs.high - pairs.low > alone.high - alone.low
    assert "groups=15" in str(pairs)


def test_no_interval_where_it_would_say_too_much():
    up = np.arange(12.0)
    few = rank_correlation(up, np.array([*range(10), 11.0, 10.0]), [f"p{i % 9}" for i in range(12)])
    assert few.rho > 0.9
    assert not few.published
    assert "[none]" in str(few)
    perfect = rank_correlation(up, up, people(12))
    assert perfect.rho == 1
    assert not perfect.published
    for x in ([1.0] * 12, [math.nan] * 12):
        assert math.isnan(rank_correlation(x, up, people(12)).rho)
    assert "n/a" in str(rank_correlation([1.0, 2.0], [1.0, 2.0], people(2)))


def test_values_and_groups_must_pair():
    with pytest.raises(ValueError, match="2 and 2 values, 1 groups"):
        rank_correlation([1.0, 2.0], [1.0, 2.0], ["p"])


@pytest.mark.parametrize("same", [0.0, 0.7])
def test_coverage_with_two_cases_a_person(same):
    """Binormal pairs of correlation r have a rank correlation of 6 / pi arcsin(r / 2); rather too wide than not."""
    rng = np.random.default_rng(2)
    r, inside = 0.6, 0
    truth = 6 / math.pi * math.asin(r / 2)
    groups = [f"p{i // 2}" for i in range(50)]
    for _ in range(400):
        shared, own = (rng.multivariate_normal([0, 0], [[1, r], [r, 1]], n) for n in (25, 50))
        pair = math.sqrt(same) * np.repeat(shared, 2, axis=0) + math.sqrt(1 - same) * own
        found = rank_correlation(pair[:, 0], pair[:, 1], groups)
        inside += found.low <= truth <= found.high
    assert inside >= 370

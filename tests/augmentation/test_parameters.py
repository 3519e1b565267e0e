import numpy as np
import pytest
from scipy import stats

from segkit.augmentation.parameters import (
    around_one,
    check_probability,
    check_range,
    draw_channels,
    thin_axis,
    uniform,
)
from segkit.errors import UsageError

# Four Kolmogorov-Smirnov tests at fixed seeds; each at 0.0025 keeps the family at 1 %.
ALPHA = 0.0025


def test_uniform_is_uniform():
    rng = np.random.default_rng(0)
    drawn = [uniform(rng, (0.5, 2.0)) for _ in range(10_000)]
    assert stats.kstest(drawn, stats.uniform(0.5, 1.5).cdf).pvalue > ALPHA


@pytest.mark.parametrize(("low", "high"), [(0.7, 1.5), (0.75, 1.25)])
def test_around_one_is_as_often_below_as_above(low: float, high: float):
    rng = np.random.default_rng(1)
    drawn = np.array([around_one(rng, (low, high)) for _ in range(10_000)])

    def mixture(x):
        return 0.5 * stats.uniform(low, 1 - low).cdf(x) + 0.5 * stats.uniform(1, high - 1).cdf(x)

    assert stats.kstest(drawn, mixture).pvalue > ALPHA
    assert stats.binomtest(int((drawn < 1).sum()), len(drawn)).pvalue > ALPHA


def test_around_one_off_one_is_uniform():
    rng = np.random.default_rng(2)
    drawn = [around_one(rng, (1.2, 1.4)) for _ in range(5_000)]
    assert stats.kstest(drawn, stats.uniform(1.2, 0.2).cdf).pvalue > ALPHA


def test_channels_are_drawn_one_by_one():
    rng = np.random.default_rng(3)
    drawn = [draw_channels(rng, 2, 0.5, rng.random) for _ in range(4_000)]
    nothing = sum(one is None for one in drawn)
    both = sum(one is not None and None not in one for one in drawn)
    assert stats.binomtest(nothing, 4_000, 0.25).pvalue > ALPHA
    assert stats.binomtest(both, 4_000, 0.25).pvalue > ALPHA
    assert draw_channels(rng, 3, 0.0, rng.random) is None


@pytest.mark.parametrize(
    ("patch", "axis"),
    [((64, 64, 64), None), ((20, 60, 60), None), ((20, 61, 60), 0), ((128, 128, 16), 2), ((16, 512), None)],
)
def test_thin_axis_is_more_than_three_times_shorter(patch: tuple[int, ...], axis: int | None):
    assert thin_axis(patch) == axis


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_no_probability(value: float):
    with pytest.raises(UsageError, match="not a probability"):
        check_probability("noise.probability", value)


@pytest.mark.parametrize("limits", [(2.0, 1.0), (0.0, 1.0), (1.0,), (float("nan"), 1.0)])
def test_no_range(limits: tuple[float, ...]):
    with pytest.raises(UsageError, match="not a range"):
        check_range("gamma.exponent", limits, above=0.0)

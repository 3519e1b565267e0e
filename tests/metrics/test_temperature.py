"""A known temperature comes back; derivatives against finite differences; the minimum against a search of its own."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

import segkit.metrics.temperature
from segkit.errors import DataError
from segkit.metrics.temperature import NODES, fit_temperature, no_voxels, softmax, temperature_curve


def drawn(rng, *, temperature, voxels=20_000, classes=3, scale=3.0):
    """Logits, and labels drawn from softmax(z / T)."""
    logits = rng.normal(0, scale, (classes, voxels))
    cumulated = softmax(logits, temperature).cumsum(axis=0)
    return logits, (rng.random(voxels) > cumulated[:-1]).sum(axis=0)


def nll(logits, label, log_t):
    """Mean negative log-likelihood, from the formula."""
    log_p = log_softmax(logits * np.exp(-log_t), axis=0)
    return -log_p[label, np.arange(label.size)].mean()


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_a_known_temperature_comes_back(temperature):
    rng = np.random.default_rng(0)
    cases = [drawn(rng, temperature=temperature) for _ in range(12)]
    fit = fit_temperature([temperature_curve(z, y) for z, y in cases], [f"p{i}" for i in range(12)])
    found = fit.temperature
    # Within twice the half width of the 95 % interval, which itself is narrow.
    assert abs(np.log(found.mean / temperature)) < 2 * np.log(found.high / found.mean)
    assert found.high / found.low < 1.1
    assert (found.n, found.n_groups) == (12, 12)
    assert fit.nll_after <= fit.nll_before


def test_derivatives_are_those_of_finite_differences():
    rng = np.random.default_rng(1)
    logits, label = drawn(rng, temperature=1.5, voxels=50, classes=4)
    value, slope, curvature = temperature_curve(logits, label).mean().T
    h = 1e-4
    below, here, above = (np.array([nll(logits, label, t + d) for t in NODES]) for d in (-h, 0, h))
    np.testing.assert_allclose(value, here, rtol=1e-12)
    np.testing.assert_allclose(slope, (above - below) / (2 * h), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(curvature, (above - 2 * here + below) / h**2, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("scale", [0.5, 3.0, 10.0])
def test_the_minimum_is_that_of_a_search_over_all_voxels(scale):
    """Cases of very different sizes weigh the same; the polynomial between the nodes costs nothing."""
    rng = np.random.default_rng(2)
    cases = [drawn(rng, temperature=1.7 * scale / 3, voxels=v, scale=scale) for v in (50, 400, 3000)]
    fit = fit_temperature([temperature_curve(z, y) for z, y in cases], ["a", "b", "c"])

    def mean(log_t):
        return np.mean([nll(z, y, log_t) for z, y in cases])

    found = minimize_scalar(mean, bounds=(NODES[0], NODES[-1]), method="bounded", options={"xatol": 1e-9})
    assert np.log(fit.temperature.mean) == pytest.approx(found.x, abs=5e-6)
    assert fit.nll_after == pytest.approx(found.fun, abs=1e-7)
    assert fit.nll_before == pytest.approx(mean(0.0), abs=1e-12)


def test_there_is_one_minimum():
    """The slope over 1 / T never falls, so over ln T it changes its sign once, whatever the labels are."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        logits = rng.normal(0, rng.uniform(0.1, 30), (3, 40))
        curve = temperature_curve(logits, rng.integers(0, 3, 40))
        over_beta = -curve.slope * np.exp(NODES)
        assert (np.diff(over_beta) <= 1e-9).all()  # NODES run against 1 / T
        assert np.count_nonzero(np.diff(np.sign(curve.slope))) <= 1


def test_parts_add_up_and_single_precision_is_enough(monkeypatch):
    rng = np.random.default_rng(4)
    logits, label = drawn(rng, temperature=1.3, voxels=30_000, classes=2)
    whole = temperature_curve(logits, label)
    monkeypatch.setattr(segkit.metrics.temperature, "_CHUNK_VALUES", 5_000)
    parts = temperature_curve(logits[:, :123], label[:123]) + temperature_curve(logits[:, 123:], label[123:])
    single = temperature_curve(logits.astype(np.float32), label)
    assert whole.n == parts.n == 30_000
    np.testing.assert_allclose(parts.mean(), whole.mean(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(single.mean(), whole.mean(), rtol=2e-5, atol=1e-6)
    fits = [fit_temperature([curve], ["p"]).temperature.mean for curve in (whole, single)]
    assert fits[1] == pytest.approx(fits[0], rel=1e-5)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Of 300 people, two cases each, whose logits are off by a factor of their own, twelve are drawn at a time."""
    rng = np.random.default_rng(5)
    curves = []
    for factor in np.exp(rng.normal(0, 0.2, 300)):
        for _ in range(2):
            z, y = drawn(rng, temperature=1.0, voxels=40)
            curves.append(temperature_curve(z * factor, y))
    truth = fit_temperature(curves, [f"p{i // 2}" for i in range(600)]).temperature.mean
    inside = 0
    for _ in range(100):
        chosen = [2 * i + k for i in rng.choice(300, 12, replace=False) for k in (0, 1)]
        found = fit_temperature([curves[i] for i in chosen], [f"p{i // 2}" for i in chosen]).temperature
        inside += found.low <= truth <= found.high
    assert inside >= 87  # 95 % of 100, less three and a half standard deviations of the binomial


def test_a_model_that_is_never_wrong_or_knows_nothing_is_refused():
    rng = np.random.default_rng(6)
    logits = rng.normal(0, 3, (3, 200))
    with pytest.raises(DataError, match="never wrong"):
        fit_temperature([temperature_curve(logits, logits.argmax(0))], ["p"])
    with pytest.raises(DataError, match="say nothing"):
        fit_temperature([temperature_curve(logits, logits.argmin(0))], ["p"])
    with pytest.raises(DataError, match="say nothing"):
        fit_temperature([temperature_curve(np.zeros((3, 10)), np.zeros(10, dtype=int))], ["p"])


def test_cases_without_voxels_are_the_callers_to_leave_out():
    with pytest.raises(ValueError, match="have voxels"):
        fit_temperature([no_voxels()], ["p"])
    with pytest.raises(ValueError, match="have voxels"):
        fit_temperature([], [])


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1.0, 10.0])
def test_softmax_sums_to_one_and_keeps_the_largest(temperature):
    logits = np.random.default_rng(7).normal(0, 40, (5, 1000)).astype(np.float32)
    found = softmax(logits, temperature)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(0), 1, rtol=1e-5)
    np.testing.assert_array_equal(found.argmax(0), logits.argmax(0))
    expected = np.exp(log_softmax(logits.astype(np.float64) / temperature, axis=0))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_is_positive(temperature):
    with pytest.raises(ValueError, match="positive"):
        softmax(np.zeros((2, 1)), temperature)

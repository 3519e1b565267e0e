import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import BinaryCalibrationError

from segkit.metrics.reliability import mean_reliability, no_voxels, reliability


def test_a_table_by_hand():
    """Two bins of two: {0.1, 0.3} with no hit, {0.6, 0.8} with one."""
    table = reliability(np.array([0.1, 0.3, 0.6, 0.8]), np.array([False, False, False, True]), bins=2)
    np.testing.assert_allclose(table.count, [2, 2])
    np.testing.assert_allclose(table.probability, [0.4, 1.4])
    np.testing.assert_allclose(table.hits, [0, 1])
    assert table.ece == pytest.approx((0.4 + 0.4) / 4)
    assert table.brier == pytest.approx((0.01 + 0.09 + 0.36 + 0.04) / 4)
    assert table.rows() == [
        {"share": 0.5, "probability": pytest.approx(0.2), "frequency": 0.0},
        {"share": 0.5, "probability": pytest.approx(0.7), "frequency": 0.5},
    ]


def test_what_is_right_as_often_as_it_says_has_no_error():
    p = np.array([0.25] * 4 + [0.75] * 4)
    y = np.array([True, False, False, False, True, True, True, False])
    table = reliability(p, y)
    assert table.ece == 0
    assert table.brier == pytest.approx(0.25 * 0.75)  # the variance that is left
    assert reliability(np.array([0.0, 1.0]), np.array([False, True])).ece == 0


def test_always_sure_and_half_right():
    table = reliability(np.ones(10), np.arange(10) < 5)
    assert table.ece == 0.5
    assert table.brier == 0.5


def test_torchmetrics_agrees():
    rng = np.random.default_rng(0)
    p, y = rng.random(5000), rng.random(5000) < 0.3
    metric = BinaryCalibrationError(n_bins=15, norm="l1")
    expected = float(metric(torch.from_numpy(p), torch.from_numpy(y.astype(np.int64))))
    assert reliability(p, y).ece == pytest.approx(expected, abs=1e-6)
    assert reliability(p, y).brier == pytest.approx(float(((p - y) ** 2).mean()))


def test_parts_add_up():
    rng = np.random.default_rng(1)
    p, y = rng.random(300), rng.random(300) < 0.5
    both = reliability(p[:100], y[:100]) + reliability(p[100:], y[100:])
    whole = reliability(p, y)
    assert both.n == whole.n == 300
    assert (both.ece, both.brier) == pytest.approx((whole.ece, whole.brier))


def test_cases_weigh_the_same_in_their_mean():
    """A thousand voxels that are doubted too much, ten that are trusted too much: in the mean they make up for it."""
    doubted = reliability(np.full(1000, 0.5), np.ones(1000, dtype=bool))
    trusted = reliability(np.full(10, 0.5), np.zeros(10, dtype=bool))
    assert (doubted.ece, trusted.ece) == (0.5, 0.5)
    mean = mean_reliability([doubted, trusted, no_voxels()])
    assert mean.n == pytest.approx(1)
    assert mean.ece == pytest.approx(0)
    assert mean.brier == pytest.approx(0.25)


def test_without_voxels_nothing_is_defined():
    assert math.isnan(no_voxels().ece)
    assert math.isnan(no_voxels().brier)
    assert math.isnan(mean_reliability([no_voxels()]).ece)
    assert no_voxels().rows() == []
    assert reliability(np.zeros(0), np.zeros(0, dtype=bool)).n == 0

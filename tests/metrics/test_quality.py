import numpy as np
import pytest

from segkit.metrics.quality import expected_dice, mean_of_defined


def estimate(probability, predicted):
    """Of one class, from its voxels."""
    inside = np.array([probability[predicted].sum()])
    return expected_dice(inside, np.array([float(predicted.sum())]), np.array([probability.sum()]))[0]


def test_by_hand():
    p = np.array([0.9, 0.7, 0.4, 0.0])
    assert estimate(p, p > 0.5) == pytest.approx(2 * 1.6 / (2 + 2.0))


def test_certain_probabilities_make_it_the_dice_itself():
    truth = np.array([1, 1, 1, 0, 0, 0], dtype=bool)
    mask = np.array([0, 1, 1, 1, 0, 0], dtype=bool)
    assert estimate(truth.astype(float), mask) == pytest.approx(2 * 2 / (3 + 3))


def test_it_is_near_the_mean_dice_over_truths_that_the_probabilities_allow():
    rng = np.random.default_rng(0)
    p = rng.beta(0.3, 0.3, 3000)
    mask = p > 0.5
    drawn = rng.random((400, p.size)) < p
    dice = 2 * (drawn & mask).sum(1) / (mask.sum() + drawn.sum(1))
    assert estimate(p, mask) == pytest.approx(dice.mean(), abs=3e-3)


def test_which_classes_count():
    inside = np.array([0.0, 0.0, 0.0, 0.2])
    predicted = np.array([0.0, 0.0, 0.0, 1.0])
    expected = np.array([0.0, 0.4, 7.0, 0.3])
    found = expected_dice(inside, predicted, expected)
    np.testing.assert_array_equal(np.isnan(found), [True, True, False, False])
    assert found[2] == 0  # probably there, and nothing predicted
    assert found[3] == pytest.approx(2 * 0.2 / 1.3)
    assert mean_of_defined(found) == pytest.approx((0 + 0.4 / 1.3) / 2)
    assert np.isnan(mean_of_defined(found[:2]))

"""Each note appears when its fault is there and is silent when it is not."""

import numpy as np
import pytest

from segkit.callbacks.notes import MEAN_DRIFT, SPREAD_RATIO, normalisation_drift, nothing_learnt, over_fitting


@pytest.mark.parametrize(
    ("score", "epoch", "expected"), [(0.0, 9, True), (0.0, 3, False), (0.02, 9, False), (0.009, 5, True)]
)
def test_nothing_learnt_only_after_the_warm_up(score: float, epoch: int, expected: bool) -> None:
    assert (nothing_learnt(score, epoch=epoch, warmup_epochs=5) is not None) == expected


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [([0.3, 0.3], False), ([0.3, 0.3, 0.3], True), ([0.3, 0.1, 0.3], False), ([0.0, 0.2, 0.2, 0.2], True), ([], False)],
)
def test_over_fitting_needs_three_wide_gaps_running(gaps: list[float], expected: bool) -> None:
    assert (over_fitting(gaps) is not None) == expected


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [(0.1, 1.0, False), (0.5, 0.6, False), (0.6, 1.0, True), (0.0, 2.1, True), (0.0, 0.45, True), (-0.7, 1.0, True)],
)
def test_normalisation_drift_in_units_of_the_prepared_spread(mean: float, std: float, expected: bool) -> None:
    scaled = {"mean": 3 + 7 * mean, "std": 7 * std, "min": 3 - 7 * 3}
    assert (normalisation_drift(scaled, {"mean": 3.0, "std": 7.0, "min": 3 - 7 * 3.0}) is not None) == expected


@pytest.mark.parametrize(("clip", "expected"), [(False, False), (True, True)])
def test_a_gamma_that_clips_z_scored_images_at_zero_is_caught(clip: bool, expected: bool) -> None:
    values = np.random.default_rng(0).normal(size=100_000)
    prepared = {"mean": 0.0, "std": 1.0, "min": float(values.min())}
    values = values.clip(0, None) ** 1.5 if clip else values
    # mean 0.43 and spread 0.77 of the clipped ones pass both limits: only the lower end gives them away
    augmented = {"mean": float(values.mean()), "std": float(values.std()), "min": float(values.min())}
    assert abs(augmented["mean"]) < MEAN_DRIFT
    assert augmented["std"] > 1 / SPREAD_RATIO
    assert (normalisation_drift(augmented, prepared) is not None) == expected

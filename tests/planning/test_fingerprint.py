"""Pooled statistics against the same statistics taken at once."""

import json

import numpy as np
import pytest

from segkit.planning.fingerprint import CaseFacts, Fingerprint, case_facts, pool_facts


def facts_of(values, *, shape=(20, 30, 10), native=(20, 30, 20), spacing=(1.0, 1.0, 2.0)):
    """A case whose foreground (class 1) holds exactly `values` in channel 0 and their negatives in channel 1."""
    image = np.zeros((2, *shape), dtype=np.float32)
    label = np.zeros(shape, dtype=np.int8)
    label.reshape(-1)[: len(values)] = 1
    label.reshape(-1)[-5:] = -1
    image[0].reshape(-1)[: len(values)] = values
    image[1].reshape(-1)[: len(values)] = -np.asarray(values)
    return case_facts(image, label, spacing=spacing, native_shape=native, num_classes=3)


def test_case_counts_leave_ignored_voxels_out():
    facts = facts_of(np.arange(100.0))
    assert facts.class_voxels == (6000 - 105, 100, 0)
    assert facts.num_channels == 2


@pytest.mark.parametrize("count", [1, 2, 3, 17, 999, 1000, 1001, 2500])
def test_the_quantiles_are_numpys_to_the_last_digit(count):
    rng = np.random.default_rng(count)
    levels = (np.arange(1000) + 0.5) / 1000
    for values in (rng.normal(size=count), rng.integers(0, 9, count), np.full(count, 1e6)):
        (own, mirrored) = facts_of(values).channels
        foreground = np.asarray(values, dtype=np.float32).astype(np.float64)
        assert own.quantiles == tuple(np.quantile(foreground, levels))
        assert mirrored.quantiles == tuple(np.quantile(-foreground, levels))


def test_equal_cases_pool_to_the_moments_and_percentiles_of_all_voxels():
    rng = np.random.default_rng(1)
    samples = [rng.normal(100 * i, 10 + i, 2000) for i in range(4)]
    pooled = pool_facts([facts_of(s) for s in samples], channels=("a", "b")).intensities[0]
    every = np.concatenate(samples).astype(np.float32).astype(np.float64)
    assert pooled.mean == pytest.approx(every.mean(), rel=1e-9)
    assert pooled.std == pytest.approx(every.std(), rel=1e-9)
    assert (pooled.minimum, pooled.maximum) == (every.min(), every.max())
    for name, q in (("percentile_00_5", 0.5), ("median", 50), ("percentile_99_5", 99.5)):
        assert getattr(pooled, name) == pytest.approx(np.percentile(every, q), abs=1.5)


def test_every_case_weighs_the_same_however_large_its_foreground():
    pooled = pool_facts([facts_of(np.full(10, 1.0)), facts_of(np.full(3000, 3.0))], channels=("a", "b"))
    assert pooled.intensities[0].mean == pytest.approx(2.0)
    assert pooled.intensities[1].std == pytest.approx(1.0)


def test_cases_without_foreground_count_for_shapes_only():
    empty = facts_of([])
    pooled = pool_facts([empty, facts_of(np.full(10, 5.0))], channels=("a", "b"))
    assert pooled.num_cases == 2
    assert pooled.intensities[0].mean == 5.0
    assert pooled.class_cases == (2, 1, 0)
    assert pool_facts([empty], channels=("a", "b")).intensities == ()


def test_relative_size_is_the_share_that_the_crop_keeps():
    assert pool_facts([facts_of([1.0])], channels=("a", "b")).relative_size == pytest.approx(0.5)


def test_json_round_trip():
    facts = facts_of(np.arange(50.0))
    assert CaseFacts.from_json(json.loads(json.dumps(facts.to_json()))) == facts
    pooled = pool_facts([facts], channels=("a", "b"))
    assert Fingerprint.from_json(json.loads(json.dumps(pooled.to_json()))) == pooled


def test_no_case_is_refused():
    with pytest.raises(ValueError, match="at least one case"):
        pool_facts([], channels=("a",))

"""Dice by Voronoi cell: by hand, in mm, against a slow definition."""

import math

import numpy as np
import pytest

from segkit.metrics.component_dice import component_dice, mean_component_dice
from segkit.ops.instances import voronoi_cells


def line(*runs, length=20):
    ids = np.zeros((1, length), dtype=np.int32)
    for start, stop, name in runs:
        ids[0, start:stop] = name
    return ids


def test_by_hand():
    reference = line((0, 4, 1), (14, 16, 2))
    # Cells meet between voxels 8 and 9: voxel 8 is 5 from the first, 6 from the second.
    prediction = line((0, 4, 1), (8, 9, 1), (15, 18, 1)) > 0
    # First: 2 * 4 / (5 + 4). Second: 2 * 1 / (3 + 2).
    values = component_dice(reference, prediction, spacing=(1.0, 1.0))
    assert values == pytest.approx((8 / 9, 2 / 5))
    assert mean_component_dice(values) == pytest.approx((8 / 9 + 2 / 5) / 2)


def test_a_missed_one_counts_nothing():
    assert component_dice(line((0, 4, 1), (14, 16, 2)), line((0, 4, 1)) > 0, spacing=(1.0, 1.0)) == (1.0, 0.0)


def test_no_component():
    assert component_dice(line(), line((0, 3, 1)) > 0, spacing=(1.0, 1.0)) == ()
    assert math.isnan(mean_component_dice(()))


def test_cells_are_nearest_in_mm():
    components = np.zeros((7, 7), dtype=np.int32)
    components[0, 0], components[6, 3] = 1, 2
    spacing = (5.0, 1.0)
    places = {1: np.array([0.0, 0.0]), 2: np.array([30.0, 3.0])}
    cells = voronoi_cells(components, spacing)
    for index in np.ndindex(7, 7):
        here = np.array(index) * spacing
        distance = {name: np.linalg.norm(here - place) for name, place in places.items()}
        if not math.isclose(distance[1], distance[2]):
            assert cells[index] == min(distance, key=lambda name: distance[name])


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_slow_definition(seed):
    rng = np.random.default_rng(seed)
    reference = np.zeros((8, 9, 7), dtype=np.int32)
    for name in (3, 5, 9):
        corner = rng.integers(0, 6, 3)
        reference[tuple(slice(c, c + 2) for c in corner)] = name
    prediction = rng.random(reference.shape) < 0.2
    cells = voronoi_cells(reference, (1.0, 1.0, 3.0))
    expected = []
    for name in np.unique(reference[reference > 0]):
        own, within = reference == name, prediction & (cells == name)
        expected.append(2 * (own & prediction).sum() / (own.sum() + within.sum()))
    assert component_dice(reference, prediction, spacing=(1.0, 1.0, 3.0)) == pytest.approx(tuple(expected))

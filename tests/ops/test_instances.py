"""Instance ids: numbered by class, made compact, and their cells against brute force."""

import numpy as np
import pytest

from segkit.ops.instances import compact, components_by_class, voronoi_cells


def test_classes_that_touch_are_two_components():
    label = np.array([[1, 1, 2, 2], [0, 0, 0, 1], [-1, 1, 0, 0]])
    # The 1s at the right and below are their own components; a corner joins 2 with nothing else of its class.
    assert components_by_class(label).tolist() == [[1, 1, 4, 4], [0, 0, 0, 2], [0, 3, 0, 0]]


def test_corners_connect():
    assert components_by_class(np.eye(4, dtype=np.int8)).max() == 1
    assert components_by_class(np.zeros((3, 3, 3), dtype=np.int8)).max() == 0


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (3.0, 0.5)])
def test_a_cell_is_of_the_nearest_instance_in_mm(spacing):
    ids = np.zeros((9, 11), dtype=np.int32)
    ids[2, 3], ids[6:8, 8:10], ids[1, 9] = 4, 7, 9
    found = voronoi_cells(ids, spacing)
    voxels = np.argwhere(ids)
    for index in np.ndindex(ids.shape):
        distances = np.linalg.norm((voxels - np.array(index)) * spacing, axis=1)
        nearest = {int(ids[tuple(v)]) for v, d in zip(voxels, distances, strict=True) if d <= distances.min() + 1e-9}
        assert int(found[index]) in nearest
    assert not voronoi_cells(np.zeros((3, 3), dtype=np.int32), (1.0, 1.0)).any()


def test_compact_keeps_what_is_together_and_the_order():
    rng = np.random.default_rng(0)
    ids = rng.choice([0, 3, 17, 400, 40_000], (5, 6, 4))
    cells = rng.choice([3, 9, 400], (5, 6, 4))
    maps, count = compact([ids, cells])
    names = np.unique(np.concatenate([ids.ravel(), cells.ravel()]))
    expected = {name: number for number, name in enumerate(names)}  # 0 is among them
    for before, after in zip((ids, cells), maps, strict=True):
        assert np.array_equal(after, np.vectorize(expected.get)(before))
        assert after.dtype == np.int16
    assert count == len(names) - 1


def test_compact_of_nothing_and_of_many():
    assert compact([]) == ([], 0)
    (empty,), none = compact([np.zeros((2, 2), dtype=np.int32)])
    assert (none, empty.any()) == (0, False)
    (many,), count = compact([np.arange(1, 40_002)])
    assert (count, int(many[-1]), many.dtype) == (40_001, 40_001, np.int32)

import numpy as np
import pytest

from segkit.ops.connected_components import connected_components, voxels_of_volume


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_shared_corner_joins_only_under_full(dimensions: int):
    mask = np.zeros((4,) * dimensions, dtype=bool)
    mask[(0,) * dimensions] = mask[(1,) * dimensions] = True
    assert connected_components(mask)[1] == 1
    assert connected_components(mask, connectivity="faces")[1] == 2


def test_ids_cover_the_mask_and_nothing_else():
    mask = np.random.default_rng(0).random((20, 20, 20)) > 0.8
    ids, count = connected_components(mask, connectivity="faces")
    np.testing.assert_array_equal(ids > 0, mask)
    assert sorted(np.unique(ids)) == list(range(count + 1))
    # No two face neighbours carry different ids.
    for axis in range(3):
        a, b = np.moveaxis(ids, axis, 0)[:-1], np.moveaxis(ids, axis, 0)[1:]
        assert (a == b)[(a > 0) & (b > 0)].all()


def test_empty_mask():
    ids, count = connected_components(np.zeros((5, 5), dtype=bool))
    assert count == 0
    assert not ids.any()


@pytest.mark.parametrize(
    ("volume", "spacing", "voxels"),
    [
        (12.0, (1.0, 2.0, 3.0), 2), (12.1, (1.0, 2.0, 3.0), 3), (0.3, (0.1, 1.0), 3), (0.0, (1.0, 1.0), 0),
        (48.6, (float(np.float32(0.9)), 1.0, 2.0), 27), (48.7, (float(np.float32(0.9)), 1.0, 2.0), 28),
    ],
)  # fmt: skip
def test_a_component_of_just_the_volume_is_large_enough(volume, spacing, voxels):
    """3 * 0.1 is 0.30000000000000004 in floating point; 0.9 is 0.89999998 in the header of a file."""
    assert voxels_of_volume(volume, spacing) == voxels

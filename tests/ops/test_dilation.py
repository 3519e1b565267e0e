"""By hand on few voxels; against every pair of voxels on random masks."""

import numpy as np
import pytest

import segkit.ops.dilation
from segkit.ops.dilation import within_distance


def test_one_voxel_of_1_x_1_x_3_mm() -> None:
    """5 mm: along z one slice up and down (3 mm), and there 4 mm within the plane (3-4-5)."""
    mask = np.zeros((13, 13, 7), dtype=bool)
    mask[6, 6, 3] = True
    found = within_distance(mask, 5.0, (1.0, 1.0, 3.0))
    x, y = np.mgrid[-6:7, -6:7]
    assert np.array_equal(found[:, :, 3], x**2 + y**2 <= 25)
    for z in (2, 4):
        assert np.array_equal(found[:, :, z], x**2 + y**2 <= 16)
    assert not found[:, :, [0, 1, 5, 6]].any()
    # Lattice points of a disc of radius 5, and of two of radius 4.
    assert found.sum() == 81 + 2 * 49


def all_pairs(mask: np.ndarray, distance: float, spacing: tuple[float, ...]) -> np.ndarray:
    voxels = np.stack(np.meshgrid(*map(np.arange, mask.shape), indexing="ij"), axis=-1) * np.array(spacing)
    squared = ((voxels[..., None, :] - voxels[mask]) ** 2).sum(-1)
    return (squared <= distance**2 + 1e-9).any(-1)


@pytest.mark.parametrize("slab", [8_000_000, 100])
@pytest.mark.parametrize(("shape", "spacing"), [((14, 9, 11), (0.7, 2.0, 1.3)), ((25, 30), (1.0, 0.4))])
def test_every_pair_of_voxels(
    shape: tuple[int, ...], spacing: tuple[float, ...], slab: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segkit.ops.dilation, "_SLAB_VOXELS", slab)
    for seed in range(5):
        mask = np.random.default_rng(seed).random(shape) < 0.01
        for distance in (0.0, 1.0, 3.1):
            found = within_distance(mask, distance, spacing)
            assert np.array_equal(found, all_pairs(mask, distance, spacing))


def test_spacing_that_was_rounded_still_reaches() -> None:
    mask = np.zeros((101, 1), dtype=bool)
    mask[0] = True
    assert within_distance(mask, 5.0, (0.1, 1.0)).sum() == 51


def test_empty_and_whole() -> None:
    assert not within_distance(np.zeros((3, 4), dtype=bool), 5.0, (1.0, 1.0)).any()
    assert within_distance(np.ones((3, 4), dtype=bool), 0.0, (1.0, 1.0)).all()


@pytest.mark.parametrize(("distance", "spacing"), [(-1.0, (1.0, 1.0)), (1.0, (1.0,)), (1.0, (1.0, 0.0))])
def test_what_makes_no_sense_is_refused(distance: float, spacing: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="a distance of"):
        within_distance(np.ones((3, 4), dtype=bool), distance, spacing)

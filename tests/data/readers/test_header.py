import numpy as np
import pytest

from segkit.data.readers.header import mask_dtype, planar_affine, require_affine, require_extent, spacing_of
from segkit.errors import DataError


def test_a_size_is_judged_without_allocating_it():
    require_extent((1000, 1000, 2000), where="x")
    with pytest.raises(DataError, match="more voxels") as caught:
        require_extent((32000, 32000, 32000), where="x")
    assert "32000 x 32000 x 32000" in caught.value.why
    with pytest.raises(DataError, match="axis 1 has 0"):
        require_extent((3, 0, 3), where="x")
    with pytest.raises(DataError, match="axis 2 has -7"):
        require_extent((3, 1, -7), where="x")


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_singular_means_direction_not_size(scale):
    require_affine(np.diag([scale, scale, 1000 * scale, 1]), where="x")
    flat = np.eye(4)
    flat[:3, 1] = flat[:3, 0]
    for bad in (flat, np.diag([1.0, 0, 1, 1]), np.zeros((4, 4))):
        with pytest.raises(DataError, match="singular"):
            require_affine(bad * scale, where="x")
    with pytest.raises(DataError, match="not finite"):
        require_affine(np.full((4, 4), np.nan), where="x")


def test_a_slice_keeps_its_spacing_and_distances_in_its_own_plane():
    edges = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = edges * [0.5, 2.0, 3.0], (5, 6, 7)
    planar = planar_affine(affine)
    np.testing.assert_allclose(spacing_of(planar), (0.5, 2.0))
    a, b = np.array([1, 2]), np.array([8, -3])
    in_space = np.linalg.norm(affine[:3, :2] @ (a - b))
    assert np.linalg.norm(planar[:2, :2] @ (a - b)) == pytest.approx(in_space)


@pytest.mark.parametrize(
    ("own", "highest", "expected"),
    [
        ("float32", 3, "float32"),
        ("float32", 2**24, "float32"),
        ("float32", 2**24 + 1, "uint32"),
        ("float16", 4096, "uint16"),
        ("uint8", 255, "uint8"),
        ("uint8", 256, "uint16"),
        ("int8", 200, "uint8"),
        ("bool", 1, "bool"),
        ("bool", 2, "uint8"),
    ],
)
def test_mask_dtype_is_the_own_or_the_smallest_that_holds_every_id(own, highest, expected):
    ids = np.array([0, highest])
    dtype = mask_dtype(np.dtype(own), ids)
    assert dtype == np.dtype(expected)
    np.testing.assert_array_equal(ids.astype(dtype).astype(np.int64), ids)


def test_mask_dtype_says_when_the_format_holds_none():
    with pytest.raises(DataError, match="cannot hold"):
        mask_dtype(np.dtype("uint8"), np.array([70000]), allowed=("uint8", "uint16"))

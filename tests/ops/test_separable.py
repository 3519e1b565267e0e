import numpy as np
import pytest
import torch
from scipy import ndimage

from segkit.ops.separable import convolve_along_axis, lerp_along_axis, take_along_axis

AXES = pytest.mark.parametrize("axis", [0, 1, 2, -1])


@AXES
def test_take_is_numpys(axis: int):
    images, index = torch.randn(4, 5, 6), np.array([3, 0, 0, 2])
    np.testing.assert_array_equal(take_along_axis(images, axis, index), images.numpy().take(index, axis))


@AXES
def test_lerp_is_the_weighted_sum(axis: int):
    rng = np.random.default_rng(0)
    images = torch.randn(4, 5, 6, dtype=torch.float32)
    below, above, fraction = rng.integers(0, 4, 7), rng.integers(0, 4, 7), rng.random(7)
    weight = fraction.reshape([-1 if k == axis % 3 else 1 for k in range(3)])
    expected = (1 - weight) * images.numpy().take(below, axis) + weight * images.numpy().take(above, axis)
    result = lerp_along_axis(images, axis, below, above, fraction)
    np.testing.assert_allclose(result, expected, atol=1e-6)


@AXES
@pytest.mark.parametrize("radius", [0, 1, 3, 9])
def test_convolution_is_scipys_also_beyond_short_axes(axis: int, radius: int):
    images = torch.randn(3, 5, 12)
    half = np.random.default_rng(radius).random(radius + 1)
    kernel = np.concatenate([half[:0:-1], half])
    expected = ndimage.convolve1d(images.numpy().astype(np.float64), kernel, axis=axis, mode="mirror")
    np.testing.assert_allclose(convolve_along_axis(images, axis, half.tolist()), expected, atol=1e-5)


def test_inputs_are_not_edited_and_one_voxel_is_enough():
    images = torch.randn(2, 1, 3)
    before = images.clone()
    result = convolve_along_axis(images, 1, [0.5, 0.2, 0.05])
    torch.testing.assert_close(result, images)
    lerp_along_axis(images, 2, np.array([0]), np.array([1]), np.array([0.3]))
    assert torch.equal(images, before)

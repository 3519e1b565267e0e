import numpy as np
import pytest
import torch
from scipy import ndimage

from segkit.augmentation.blur import Blur, blur_matrix


@pytest.mark.parametrize("shape", [(30, 41), (20, 23, 17), (3, 5, 1)])
def test_equals_scipy_with_a_width_for_each_axis(shape: tuple[int, ...]):
    images = torch.randn(2, 1, *shape)
    sigmas = [tuple(np.linspace(0.5, 1.0, len(shape))), tuple(np.linspace(0.93, 0.61, len(shape)))]
    result = Blur().apply(images, None, sigmas)
    for image, sigma, got in zip(images[:, 0], sigmas, result[:, 0], strict=True):
        expected = ndimage.gaussian_filter(image.numpy().astype(np.float64), sigma, mode="mirror", truncate=4.0)
        np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 3, 8, 50])
@pytest.mark.parametrize("sigma", [0.2, 0.5, 1.0, 3.0])
def test_rows_are_averages(length: int, sigma: float):
    matrix = blur_matrix(length, sigma)
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-7)  # mirrored images blur alike


def test_spread_is_the_variance_of_the_kernel():
    row = blur_matrix(41, 0.8)[20]
    offsets = np.arange(41) - 20
    assert (row * offsets).sum() == pytest.approx(0, abs=1e-6)
    assert (row * offsets**2).sum() == pytest.approx(0.64, rel=0.01)


def test_an_axis_draws_its_own_width():
    transform = Blur(probability=1.0, channel_probability=1.0)
    drawn = transform.draw(np.random.default_rng(0), channels=3, patch_size=(8, 8, 8))
    assert drawn is not None
    assert len({sigma for channel in drawn for sigma in channel}) == 9

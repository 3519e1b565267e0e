import numpy as np
import pytest
import torch
from scipy import ndimage

from segkit.augmentation.blur import Blur, blur_weights


@pytest.mark.parametrize("shape", [(30, 41), (20, 23, 17), (3, 5, 1)])
def test_equals_scipy_with_a_width_for_each_axis(shape: tuple[int, ...]):
    images = torch.randn(2, 1, *shape)
    sigmas = [tuple(np.linspace(0.5, 1.0, len(shape))), tuple(np.linspace(0.93, 0.61, len(shape)))]
    result = Blur().apply(images, None, sigmas)
    for image, sigma, got in zip(images[:, 0], sigmas, result[:, 0], strict=True):
        radius = [int(3 * one + 0.25) for one in sigma]
        expected = ndimage.gaussian_filter(image.numpy().astype(np.float64), sigma, mode="mirror", radius=radius)
        np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.2, 0.5, 0.83, 1.0, 3.0])
def test_weights_are_a_gaussian_of_sum_one(sigma: float):
    weights = blur_weights(sigma)
    assert weights[0] + 2 * sum(weights[1:]) == pytest.approx(1)
    for k, weight in enumerate(weights):
        assert weight / weights[0] == pytest.approx(np.exp(-(k**2) / (2 * sigma**2)))


def test_kernel_ends_where_nnunets_does():
    """At the odd number of voxels nearest to 6 sigma + 1/2."""
    for sigma in np.linspace(0.5, 1.0, 101):
        voxels = 2 * len(blur_weights(sigma)) - 1
        assert voxels % 2 == 1
        assert abs(voxels - (6 * sigma + 0.5)) <= 1 + 1e-9


def test_spread_is_the_variance_of_the_kernel():
    weights = np.array(blur_weights(0.9))
    assert 2 * (weights * np.arange(len(weights)) ** 2).sum() == pytest.approx(0.81, rel=0.07)  # tails are cut


def test_an_axis_draws_its_own_width():
    transform = Blur(probability=1.0, channel_probability=1.0)
    drawn = transform.draw(np.random.default_rng(0), channels=3, patch_size=(8, 8, 8))
    assert drawn is not None
    assert len({sigma for channel in drawn for sigma in channel}) == 9

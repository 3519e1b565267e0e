import numpy as np
import pytest
import torch

from segkit.augmentation.gamma import gamma


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("exponent", [0.7, 0.95, 1.5])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_formula(invert: bool, exponent: float, masked: bool):
    images = torch.randn(2, 2, 9, 10, 11) * 2 - 1
    valid = torch.rand(2, 1, 9, 10, 11) > 0.4 if masked else None
    result = gamma(images, valid, torch.full((2, 2), exponent), invert=invert)
    for b in range(2):
        for c in range(2):
            inside = valid[b, 0] if valid is not None else torch.ones(9, 10, 11, dtype=torch.bool)
            x = images[b, c][inside].numpy().astype(np.float64) * (-1 if invert else 1)
            extent = x.max() - x.min()
            y = extent * ((x - x.min()) / extent) ** exponent + x.min()
            expected = ((y - y.mean()) * x.std() / y.std() + x.mean()) * (-1 if invert else 1)
            np.testing.assert_allclose(result[b, c][inside].numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (1, -5), (300, 1000), (1e-3, 0)])
def test_mean_and_spread_are_restored(invert: bool, scale: float, shift: float):
    images = torch.randn(1, 1, 24, 24, 24) * scale + shift
    result = gamma(images, None, torch.tensor([[1.5]]), invert=invert)
    assert (result - images).abs().max() > 0.05 * scale  # it does something
    assert abs(result.double().mean() - images.double().mean()) < 1e-4 * max(scale, abs(shift))
    assert abs(result.double().std() - images.double().std()) < 1e-4 * scale


def test_order_of_values_is_kept():
    images = torch.randn(1, 1, 500).sort(-1).values.reshape(1, 1, 20, 25)
    for invert in (False, True):
        for exponent in (0.7, 1.5):
            result = gamma(images, None, torch.tensor([[exponent]]), invert=invert).flatten()
            assert (result.diff() >= -1e-5).all()


def test_inverting_bends_the_other_way():
    images = torch.linspace(-2, 2, 400).reshape(1, 1, 20, 20)
    plain = gamma(images, None, torch.tensor([[1.5]]))
    inverted = gamma(images, None, torch.tensor([[1.5]]), invert=True)
    torch.testing.assert_close(inverted, -gamma(-images, None, torch.tensor([[1.5]])))
    assert plain[0, 0, 10, 0] < images[0, 0, 10, 0] < inverted[0, 0, 10, 0]


def test_an_outlier_outside_the_mask_does_not_stretch_the_range():
    images = torch.randn(1, 1, 16, 16)
    valid = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    valid[..., :4] = False
    exponent = torch.tensor([[1.5]])
    clean = gamma(images, valid, exponent)
    images[..., 0, 0] = 1.7e6
    assert torch.equal(gamma(images, valid, exponent)[valid], clean[valid])

import torch

from segkit.augmentation.contrast import scale_contrast


def test_equals_the_formula_inside_the_mask():
    images, valid = torch.randn(2, 2, 8, 9) * 3 + 10, torch.rand(2, 1, 8, 9) > 0.3
    factor = torch.tensor([[0.75, 1.25], [1.1, 0.9]])
    result = scale_contrast(images, valid, factor)
    for b in range(2):
        for c in range(2):
            inside = images[b, c][valid[b, 0]]
            expected = ((inside - inside.mean()) * factor[b, c] + inside.mean()).clamp(inside.min(), inside.max())
            torch.testing.assert_close(result[b, c][valid[b, 0]], expected)


def test_squeezing_scales_the_spread_and_keeps_the_mean():
    images = torch.randn(1, 1, 20, 20, 20) - 4
    result = scale_contrast(images, None, torch.tensor([[0.8]]))
    torch.testing.assert_close(result.mean(), images.mean(), atol=1e-5, rtol=0)
    torch.testing.assert_close(result.std(), 0.8 * images.std(), atol=1e-5, rtol=0)


def test_stretching_stays_in_the_range():
    images = torch.randn(1, 1, 20, 20)
    result = scale_contrast(images, None, torch.tensor([[1.25]]))
    assert result.min() == images.min()
    assert result.max() == images.max()
    assert result.std() > images.std()

import pytest
import torch

from segkit.ops.intensity import extrema, mean, moments, statistics


@pytest.mark.parametrize("spatial", [(9, 10), (5, 6, 7)])
def test_equals_the_definition_inside_the_mask(spatial: tuple[int, ...]):
    image, valid = torch.randn(3, 2, *spatial) * 5 + 100, torch.rand(3, 1, *spatial) > 0.4
    found = statistics(image, valid)
    for b in range(3):
        for c in range(2):
            inside = image[b, c][valid[b, 0]].double()
            assert found.mean[b, c].item() == pytest.approx(inside.mean().item(), rel=1e-6)
            assert found.std[b, c].item() == pytest.approx(inside.std(correction=0).item(), rel=1e-5)
            assert found.minimum[b, c].item() == inside.min()
            assert found.maximum[b, c].item() == inside.max()
    assert (image - found.mean).shape == image.shape


def test_no_mask_is_a_full_mask():
    image = torch.randn(2, 3, 6, 7)
    full = torch.ones(2, 1, 6, 7, dtype=torch.bool)
    for a, b in zip(moments(image) + extrema(image), moments(image, full) + extrema(image, full), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("outside", [1e30, -1e30, float("nan"), float("inf")])
def test_the_outside_is_never_read(outside: float):
    image, valid = torch.randn(2, 2, 8, 8), torch.rand(2, 1, 8, 8) > 0.5
    polluted = image.masked_fill(~valid, outside)
    before = polluted.clone()
    first, second = statistics(image, valid), statistics(polluted, valid)
    for name in ("mean", "std", "minimum", "maximum"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert torch.equal(polluted.nan_to_num(), before.nan_to_num())  # nothing was written into it


def test_empty_mask_gives_zeros():
    found = statistics(torch.randn(1, 1, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.bool))
    assert [found.mean.item(), found.std.item(), found.minimum.item(), found.maximum.item()] == [0, 0, 0, 0]
    assert mean(torch.randn(1, 1, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.bool)).item() == 0


def test_a_small_spread_about_a_large_mean_survives():
    image = 10_000 + torch.randn(1, 1, 32, 32, 32)
    assert moments(image)[1].item() == pytest.approx(image.double().std(correction=0).item(), rel=1e-3)

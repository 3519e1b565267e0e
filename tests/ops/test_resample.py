import numpy as np
import pytest
import torch
from scipy import ndimage

from segkit.ops.resample import nearest_index, resample_image, resample_label, resample_logits

SIZES = [((20, 31, 17), (10, 40, 17)), ((20, 31, 17), (33, 20, 25)), ((12, 15), (30, 9)), ((5, 2, 1), (9, 5, 3))]


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_image_equals_a_cubic_spline_clipped_to_the_range(old: tuple[int, ...], new: tuple[int, ...]):
    image = np.random.default_rng(0).normal(size=(2, *old)).astype(np.float32)
    result = resample_image(image, new)
    assert result.shape == (2, *new)
    assert result.dtype == np.float32
    if min(old) < 4:
        assert np.isfinite(result).all()
        return
    for channel, got in zip(image.astype(np.float64), result, strict=True):
        zoom = [n / o for n, o in zip(new, old, strict=True)]
        expected = ndimage.zoom(channel, zoom, order=3, mode="nearest", grid_mode=True)
        np.testing.assert_allclose(got, expected.clip(channel.min(), channel.max()), atol=1e-5)


def test_separate_axis_takes_whole_slices():
    rng = np.random.default_rng(1)
    image = rng.normal(size=(1, 4, 12, 13)).astype(np.float32)
    result = resample_image(image, (8, 24, 26), separate_axis=0)
    for position in range(8):  # each slice is one of the old ones, resampled within itself and clipped to its range
        alone = resample_image(image[:, position // 2], (24, 26))
        np.testing.assert_allclose(result[:, position], alone, atol=1e-5)


def test_a_line_stays_a_line_and_a_constant_a_constant():
    line = np.linspace(0, 1, 40, dtype=np.float32)
    volume = np.broadcast_to(line[:, None, None], (40, 6, 7))[None]
    centres = (np.arange(60) + 0.5) * 40 / 60 - 0.5
    middle = slice(6, -6)
    np.testing.assert_allclose(resample_image(volume, (60, 6, 7))[0, middle, 3, 3], centres[middle] / 39, atol=1e-4)
    np.testing.assert_allclose(resample_image(np.full((1, 9, 9), -3.5, np.float32), (20, 4)), -3.5, rtol=1e-6)


def test_nothing_to_do_is_an_independent_copy():
    image = np.ones((1, 4, 4), np.float32)
    result = resample_image(image, (4, 4))
    result[:] = 0
    assert image.all()
    label = np.ones((4, 4), np.int16)
    resample_label(label, (4, 4))[:] = 0
    assert label.all()


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_label_is_the_largest_interpolated_one_hot(old: tuple[int, ...], new: tuple[int, ...]):
    label = np.random.default_rng(2).integers(-1, 3, old).astype(np.int16)
    result = resample_label(label, new)
    assert result.dtype == np.int16
    hot = torch.stack([torch.from_numpy(label == k).float() for k in (-1, 0, 1, 2)])
    smooth = resample_logits(hot, new).numpy()
    best = smooth.max(0)
    index = np.searchsorted([-1, 0, 1, 2], result)
    chosen = np.take_along_axis(smooth, index[None], 0)[0]
    np.testing.assert_allclose(chosen, best, atol=1e-5)
    later = [(smooth[k] > best - 1e-6) & (index < k) for k in range(4)]
    assert not np.any(later)  # ties go to the larger value


def test_label_invents_no_value_and_keeps_large_ids():
    label = np.random.default_rng(3).choice([0, 7, 30_000, 1_000_000], (9, 10, 11)).astype(np.int32)
    assert set(np.unique(resample_label(label, (14, 5, 20)))) <= {0, 7, 30_000, 1_000_000}


def test_label_by_slabs_is_the_label_in_one(monkeypatch: pytest.MonkeyPatch):
    label = np.random.default_rng(4).integers(0, 4, (6, 130, 120))
    whole = resample_label(label, (9, 500, 600))
    parts = np.concatenate([resample_label(label[:, :, k : k + 60], (9, 500, 300)) for k in (0, 60)], axis=2)
    np.testing.assert_array_equal(whole[:, :, :296], parts[:, :, :296])  # (the halves differ only where they meet)


def test_label_moves_with_its_image():
    grid = np.stack(np.meshgrid(*(np.arange(n) - n / 2.3 for n in (30, 26, 22)), indexing="ij"))
    smooth = np.exp(-np.square(grid).sum(0) / 60).astype(np.float32)
    label = (smooth > 0.4).astype(np.uint8)
    image, mask = resample_image(smooth[None], (45, 20, 33))[0], resample_label(label, (45, 20, 33))
    agree = ((image > 0.4) == (mask > 0)).mean()
    shifted = ((image > 0.4) == (np.roll(mask, 1, 0) > 0)).mean()
    assert agree > 0.99
    assert shifted < agree - 0.005


def test_logits_follow_the_pixel_area_convention():
    logits = torch.randn(3, 6, 8, 5, dtype=torch.float32)
    result = resample_logits(logits, (12, 4, 5))
    expected = torch.nn.functional.interpolate(logits[None], size=(12, 4, 5), mode="trilinear", align_corners=False)
    torch.testing.assert_close(result, expected[0])
    separate = resample_logits(logits, (12, 4, 10), separate_axis=0)
    assert torch.equal(separate[:, 0], separate[:, 1])
    assert resample_logits(logits, (6, 8, 5)) is logits
    assert resample_logits(logits[:, 0], (4, 10)).shape == (3, 4, 10)


@pytest.mark.parametrize(("old", "new"), [(56, 46), (40, 20), (7, 19), (1, 5), (5, 1), (33, 33)])
def test_nearest_index_is_the_nearest_centre(old: int, new: int):
    index = nearest_index(old, new)
    wanted = (np.arange(new) + 0.5) / new
    distance = np.abs(wanted[:, None] - (np.arange(old) + 0.5) / old)
    np.testing.assert_allclose(distance[np.arange(new), index], distance.min(1), atol=1e-12)

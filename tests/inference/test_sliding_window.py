import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference
from scipy.ndimage import gaussian_filter

from segkit.errors import UsageError
from segkit.inference.sliding_window import gaussian, mirrored, sliding_window, tile_starts, windows


def random_image(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def convolution(dimensions, channels=2, classes=3):
    torch.manual_seed(0)
    conv = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[dimensions]
    return conv(channels, classes, 3, padding=1).eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("size", "patch", "step", "expected"),
    [
        (110, 64, 0.5, (0, 23, 46)),
        (64, 64, 0.5, (0,)),
        (65, 64, 0.5, (0, 1)),
        (128, 64, 1.0, (0, 64)),
        (128, 64, 0.5, (0, 32, 64)),
        (10, 1, 1.0, tuple(range(10))),
    ],
)
def test_tile_starts(size, patch, step, expected):
    assert tile_starts(size, patch, step) == expected


def test_tiles_cover_and_keep_their_distance():
    for size in range(7, 60):
        starts = tile_starts(size, 7, 0.5)
        assert starts[0] == 0
        assert starts[-1] == size - 7
        assert max(np.diff(starts), default=0) <= 4  # ceil of 3.5: the even distance is rounded


def test_bad_tiles_are_refused():
    with pytest.raises(ValueError, match="pad it first"):
        tile_starts(5, 6)
    with pytest.raises(UsageError, match="step"):
        tile_starts(6, 5, 0.0)


@pytest.mark.parametrize("patch", [(64,), (8, 5), (7, 12, 9), (1, 4)])
def test_gaussian_is_a_filtered_delta(patch):
    delta = np.zeros(patch)
    delta[tuple(n // 2 for n in patch)] = 1
    expected = gaussian_filter(delta, [n / 8 for n in patch], mode="constant")
    expected /= expected.max()
    found = gaussian(patch).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found.min() > 0


@pytest.mark.parametrize(("size", "patch", "step"), [(37, 8, 0.5), (9, 9, 0.5), (20, 7, 0.3), (20, 7, 1.0)])
def test_windows_sum_to_one(size, patch, step):
    total = torch.zeros(size)
    for start, weight in windows(size, patch, step):
        total[start : start + patch] += weight
    torch.testing.assert_close(total, torch.ones(size))


@pytest.mark.parametrize(
    ("size", "patch"),
    [((37, 23), (8, 16)), ((5, 40), (8, 16)), ((3, 2), (8, 16)), ((13, 17, 11), (8, 4, 8)), ((3, 17, 5), (8, 4, 8))],
)
@pytest.mark.parametrize("tile_batch", [1, 3])
def test_identity_returns_the_image(size, patch, tile_batch):
    image = random_image(2, *size)
    found = sliding_window(lambda x: x, image, patch_size=patch, num_classes=2, tile_batch=tile_batch)
    torch.testing.assert_close(found, image, rtol=0, atol=2e-6)
    assert found.dtype == torch.float32
    assert found.is_contiguous()


def test_one_tile_is_bitwise_the_network():
    image, network = random_image(2, 8, 16), convolution(2)
    found = sliding_window(network, image, patch_size=(8, 16), num_classes=3)
    assert torch.equal(found, network(image[None])[0])


@pytest.mark.parametrize("dimensions", [2, 3])
def test_pointwise_network_equals_the_full_pass(dimensions):
    size = (29, 31, 18)[:dimensions]
    image = random_image(2, *size)
    weight = random_image(3, 2, seed=1)

    def network(x):
        return torch.einsum("kc,bc...->bk...", weight, x).tanh()

    found = sliding_window(network, image, patch_size=(16, 12, 8)[:dimensions], num_classes=3, tile_batch=4)
    torch.testing.assert_close(found, network(image[None])[0], rtol=0, atol=2e-6)


# Sizes at which MONAI's tiles, at fixed distance, are nnU-Net's, evenly spread.
@pytest.mark.parametrize(
    ("size", "patch"), [((32, 24), (16, 8)), ((13, 24), (16, 8)), ((24, 16, 12), (12, 8, 8)), ((24, 5, 12), (12, 8, 8))]
)
def test_equals_monai(size, patch):
    image, network = random_image(2, *size), convolution(len(size))
    found = sliding_window(network, image, patch_size=patch, num_classes=3, tile_batch=2)
    expected = sliding_window_inference(
        image[None], patch, 2, network, overlap=0.5, mode="constant", roi_weight_map=gaussian(patch)
    )
    torch.testing.assert_close(found, expected[0], rtol=1e-5, atol=1e-5)


def test_equals_monais_gaussian_for_odd_tiles():
    # Odd tiles: the two centres agree. MONAI lifts weights below 1e-3, which one axis never reaches at this size.
    image, network = random_image(2, 13, 3), convolution(2)
    found = sliding_window(network, image, patch_size=(5, 3), num_classes=3, step=0.8)
    expected = sliding_window_inference(
        image[None], (5, 3), 1, network, overlap=0.2, mode="gaussian", sigma_scale=0.125
    )
    torch.testing.assert_close(found, expected[0], rtol=1e-5, atol=1e-5)


def test_a_constant_stays_constant_and_centres_win():
    """Each tile says which one it is; the blend is theirs by weight, the nearer centre's being larger."""
    calls = iter(range(3))

    def network(x):
        return torch.full((1, 1, 64), float(next(calls)))

    found = sliding_window(network, torch.zeros(1, 110), patch_size=(64,), num_classes=1)[0]
    assert found[0] == 0
    assert found[-1] == 2
    assert (found.diff() >= -1e-6).all()
    assert found[32] < 0.5 < found[55] < 1.5


@pytest.mark.parametrize("dimensions", [2, 3])
def test_mirroring_averages_all_flips(dimensions):
    size = (8, 6, 4)[:dimensions]
    image, network = random_image(1, 2, *size), convolution(dimensions)
    found = mirrored(network, image, axes=(0, 1))
    expected = (
        network(image)
        + network(image.flip(2)).flip(2)
        + network(image.flip(3)).flip(3)
        + network(image.flip(2, 3)).flip(2, 3)
    ) / 4
    torch.testing.assert_close(found, expected)
    # And so the result turns with the image.
    torch.testing.assert_close(mirrored(network, image.flip(2), axes=(0, 1)), found.flip(2))


@pytest.mark.parametrize("bad", [lambda x: [x, x], lambda x: x[:, :1], lambda x: x[..., ::2]])
def test_a_network_that_breaks_its_contract_is_named(bad):
    with pytest.raises(UsageError, match="contract"):
        sliding_window(bad, random_image(2, 8, 8), patch_size=(8, 8), num_classes=2)


class Narrow:
    """A network on a device that has room for so many tiles."""

    def __init__(self, room):
        self.room, self.calls = room, []

    def __call__(self, batch):
        self.calls.append(len(batch))
        if len(batch) > self.room:
            raise RuntimeError(f"CUDA out of memory. Tried to allocate {len(batch)} tiles")
        return batch


def test_fewer_tiles_a_pass_where_the_memory_does_not_last():
    image, network, told = random_image(2, 37, 23), Narrow(2), []
    found = sliding_window(network, image, patch_size=(8, 16), num_classes=2, tile_batch=9, fewer=told.append)
    torch.testing.assert_close(found, image, rtol=0, atol=2e-6)
    assert told == [4, 2]
    assert network.calls[:2] == [9, 4]
    assert set(network.calls[2:]) == {2}
    assert sum(network.calls[2:]) == 9 * 2  # no tile twice


@pytest.mark.parametrize("room", [0, 1])
def test_one_tile_is_the_least(room):
    network = Narrow(room)
    if room:
        sliding_window(network, random_image(2, 20, 16), patch_size=(8, 16), num_classes=2, tile_batch=3)
        return
    with pytest.raises(RuntimeError, match="out of memory"):
        sliding_window(network, random_image(2, 20, 16), patch_size=(8, 16), num_classes=2, tile_batch=3)
    assert network.calls == [3, 1]


def test_other_errors_are_not_tried_again():
    calls = []

    def broken(batch):
        calls.append(len(batch))
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        sliding_window(broken, random_image(2, 20, 16), patch_size=(8, 16), num_classes=2, tile_batch=3)
    assert calls == [3]

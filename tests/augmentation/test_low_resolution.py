import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segkit.augmentation.low_resolution import LowResolution, lower_resolution
from segkit.ops.resample import nearest_index


@pytest.mark.parametrize("shape", [(40, 33), (40, 56, 41), (7, 5, 3)])
@pytest.mark.parametrize("zoom", [0.5, 0.61, 0.83, 0.97])
def test_equals_nearest_exact_down_and_linear_up(shape: tuple[int, ...], zoom: float):
    images = torch.randn(1, 1, *shape)
    small = [max(1, round(zoom * n)) for n in shape]
    mode = "trilinear" if len(shape) == 3 else "bilinear"
    # (torch rounds its scale to float32 and so breaks ties between two equally near voxels by chance.)
    kept = np.ix_(*(nearest_index(n, m) for n, m in zip(shape, small, strict=True)))
    down = torch.from_numpy(images[0, 0].numpy()[kept])[None, None]
    expected = F.interpolate(down, size=shape, mode=mode, align_corners=False)
    result = LowResolution().apply(images, None, [(zoom,) * len(shape)])
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)


def test_images_of_a_batch_get_their_own_zoom():
    images = torch.randn(1, 1, 20, 24).expand(3, 1, 20, 24).contiguous()
    zooms = [(0.5, 0.5), (1.0, 1.0), (0.8, 0.8)]
    together = LowResolution().apply(images, None, zooms)
    for k, zoom in enumerate(zooms):
        torch.testing.assert_close(together[k : k + 1], LowResolution().apply(images[:1], None, [zoom]))
    assert torch.equal(together[1], images[1])


@pytest.mark.parametrize("length", [1, 2, 17, 40])
@pytest.mark.parametrize("zoom", [0.5, 0.77, 0.99])
def test_each_voxel_is_an_average_of_at_most_two(length: int, zoom: float):
    """A row of unit vectors gives the matrix of what is done to a line."""
    units = torch.eye(length).reshape(1, length, 1, length)
    matrix = lower_resolution(units, None, (1.0, zoom))[0, :, 0].T
    assert ((matrix > 0).sum(1) <= 2).all()
    torch.testing.assert_close(matrix.sum(1), torch.ones(length), atol=1e-6, rtol=0)
    if round(zoom * length) in (0, length):
        assert torch.equal(matrix, torch.eye(length))


def test_thick_slices_keep_theirs():
    transform = LowResolution(probability=1.0, channel_probability=1.0)
    drawn = transform.draw(np.random.default_rng(0), channels=1, patch_size=(16, 64, 64))
    assert drawn is not None
    assert drawn[0][0] == 1.0
    assert drawn[0][1] == drawn[0][2] < 1
    images = torch.randn(1, 1, 16, 64, 64)
    result = transform.apply(images, None, drawn)
    alone = transform.apply(images[:, :, 3], None, [drawn[0][1:]])
    torch.testing.assert_close(result[:, :, 3], alone)

"""Finer and coarser grids: torch's values, and gradients that do not depend on the order of anything."""

import pytest
import torch
from torch.nn import functional as F

from segkit.networks.rescaling import block_max, downsample_linear, upsample_linear

LINEAR = {2: "bilinear", 3: "trilinear"}
MAX_POOL = {2: F.max_pool2d, 3: F.max_pool3d}


def drawn(*size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def assert_same_value_and_gradient(features, ours, theirs):
    torch.testing.assert_close(ours, theirs)
    weight = drawn(*ours.shape, seed=1).detach()
    torch.testing.assert_close(*(torch.autograd.grad((x * weight).sum(), features)[0] for x in (ours, theirs)))


@pytest.mark.parametrize(
    ("size", "factor"), [((4, 5), (2, 2)), ((1, 3), (2, 4)), ((3, 2, 4), (1, 2, 3)), ((2, 2, 1), (2, 2, 2))]
)
def test_upsampling_equals_torch(size, factor):
    features = drawn(2, 3, *size)
    theirs = F.interpolate(features, scale_factor=factor, mode=LINEAR[len(size)])
    assert_same_value_and_gradient(features, upsample_linear(features, factor), theirs)


@pytest.mark.parametrize(
    ("size", "factor"),
    [((8, 6), (2, 2)), ((16, 64), (4, 64)), ((9, 10), (3, 5)), ((4, 6, 8), (1, 2, 4)), ((6, 4, 2), (6, 4, 2))],
)
def test_downsampling_equals_torch(size, factor):
    features = drawn(2, 3, *size)
    coarse = tuple(s // f for s, f in zip(size, factor, strict=True))
    theirs = F.interpolate(features, size=coarse, mode=LINEAR[len(size)], align_corners=False)
    assert_same_value_and_gradient(features, downsample_linear(features, factor), theirs)


def test_downsampling_reads_the_innermost_voxels():
    row = torch.arange(8.0).view(1, 1, 8, 1)
    assert downsample_linear(row, (4, 1)).flatten().tolist() == [1.5, 5.5]
    assert downsample_linear(row[:, :, :6], (3, 1)).flatten().tolist() == [1.0, 4.0]
    assert downsample_linear(row, (1, 1)) is row


@pytest.mark.parametrize(
    ("size", "factor"), [((8, 6), (2, 2)), ((4, 9), (4, 3)), ((4, 6, 8), (1, 2, 4)), ((3, 4, 2), (3, 1, 2))]
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_maximum_of_blocks_equals_max_pooling(size, factor, channels_last):
    features = drawn(2, 3, *size)
    given = features.movedim(1, -1).contiguous().movedim(-1, 1) if channels_last else features
    ours = block_max(given, factor)
    assert_same_value_and_gradient(features, ours, MAX_POOL[len(size)](features, factor))
    memory_format = torch.channels_last if len(size) == 2 else torch.channels_last_3d
    assert ours.is_contiguous(memory_format=memory_format if channels_last else torch.contiguous_format)


def test_equally_large_voxels_share_the_gradient():
    features = torch.tensor([[[[1.0, 2.0, 0.0, 0.0], [2.0, 2.0, 0.0, 5.0]]]], requires_grad=True)
    block_max(features, (2, 2)).sum().backward()
    third = 1 / 3
    expected = torch.tensor([[[[0.0, third, 0.0, 0.0], [third, third, 0.0, 1.0]]]])
    torch.testing.assert_close(features.grad, expected)


def test_blocks_of_one_voxel_change_nothing():
    features = drawn(1, 2, 3, 5)
    assert torch.equal(block_max(features, (1, 1)), features)

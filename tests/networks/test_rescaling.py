"""Finer and coarser grids: torch's values, and gradients that do not depend on the order of anything."""

import pytest
import torch
from torch.nn import functional as F

from segkit.networks.rescaling import block_max, downsample_linear, shared_max, shifted_sums, upsample_linear

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
@pytest.mark.parametrize("upsample", [upsample_linear, shifted_sums])
def test_upsampling_equals_torch(size, factor, upsample):
    features = drawn(2, 3, *size)
    fine = tuple(s * f for s, f in zip(size, factor, strict=True))
    theirs = F.interpolate(features, size=fine, mode=LINEAR[len(size)], align_corners=False)
    assert_same_value_and_gradient(features, upsample(features, factor), theirs)


def test_upsampled_voxels_keep_their_centres():
    row = torch.tensor([0.0, 4.0]).view(1, 1, 2, 1)
    for upsample in (upsample_linear, shifted_sums):
        assert upsample(row, (4, 1)).flatten().tolist() == [0.0, 0.0, 0.5, 1.5, 2.5, 3.5, 4.0, 4.0]


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
@pytest.mark.parametrize("maximum", [block_max, shared_max])
def test_the_maximum_of_blocks_equals_max_pooling(size, factor, channels_last, maximum):
    features = drawn(2, 3, *size)
    given = features.movedim(1, -1).contiguous().movedim(-1, 1) if channels_last else features
    ours = maximum(given, factor)
    assert_same_value_and_gradient(features, ours, MAX_POOL[len(size)](features, factor))
    memory_format = torch.channels_last if len(size) == 2 else torch.channels_last_3d
    assert ours.is_contiguous(memory_format=memory_format if channels_last else torch.contiguous_format)


@pytest.mark.parametrize(("maximum", "share"), [(shared_max, (1 / 3, 1 / 3, 1 / 3)), (block_max, (1.0, 0.0, 0.0))])
def test_equally_large_voxels_share_the_gradient_or_the_first_has_it(maximum, share):
    features = torch.tensor([[[[1.0, 2.0, 0.0, 0.0], [2.0, 2.0, 0.0, 5.0]]]], requires_grad=True)
    maximum(features, (2, 2)).sum().backward()
    above, left, right = share
    expected = torch.tensor([[[[0.0, above, 0.0, 0.0], [left, right, 0.0, 1.0]]]])
    torch.testing.assert_close(features.grad, expected)


@pytest.mark.parametrize("rescale", [upsample_linear, shifted_sums, downsample_linear, block_max, shared_max])
def test_a_factor_of_one_changes_nothing(rescale):
    features = drawn(1, 2, 3, 5)
    assert torch.equal(rescale(features, (1, 1)), features)

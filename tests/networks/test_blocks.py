"""Blocks: shapes, arithmetic and initial weights."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segkit.networks.blocks import BlockMean, ConvBlock, ResidualBlock, StackedConvBlocks, initialise


@pytest.mark.parametrize(("kernel", "stride"), [((3, 3), (2, 1)), ((1, 3, 3), (1, 2, 2)), ((5, 3, 3), (2, 2, 2))])
def test_only_the_stride_shrinks_the_grid(kernel, stride):
    size = tuple(4 * s for s in stride)
    block = StackedConvBlocks(2, 3, count=2, kernel_size=kernel, stride=stride)
    assert block(torch.randn(2, 2, *size)).shape == (2, 3, *([4] * len(size)))
    assert [tuple(b.conv.stride) for b in block.convs] == [stride, (1,) * len(size)]


def test_a_block_is_convolution_normalisation_leaky_relu():
    torch.manual_seed(0)
    block = ConvBlock(2, 4, kernel_size=(3, 3))
    with torch.no_grad():
        block.norm.weight.uniform_(0.5, 2)
        block.norm.bias.uniform_(-1, 1)
    image = torch.randn(2, 2, 6, 7)
    x = F.conv2d(image, block.conv.weight, block.conv.bias, padding=1)
    mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True, correction=0)
    x = (x - mean) / (variance + 1e-5).sqrt() * block.norm.weight[:, None, None] + block.norm.bias[:, None, None]
    torch.testing.assert_close(block(image), torch.where(x > 0, x, 0.01 * x))


@pytest.mark.parametrize("stride", [(2, 3), (1, 2, 2), (2, 2, 2), (1, 1)])
def test_block_mean_is_average_pooling(stride):
    image = torch.randn(2, 3, *(2 * s for s in stride), generator=torch.Generator().manual_seed(0), requires_grad=True)
    pool = {2: F.avg_pool2d, 3: F.avg_pool3d}[len(stride)]
    ours, theirs = BlockMean(stride)(image), pool(image, stride, stride)
    torch.testing.assert_close(ours, theirs)
    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(*(torch.autograd.grad((x * weight).sum(), image)[0] for x in (ours, theirs)))


@pytest.mark.parametrize(
    ("channels", "stride", "shortcut"),
    [
        ((4, 4), (1, 1), []),
        ((4, 4), (2, 2), [BlockMean]),
        ((4, 6), (1, 1), [ConvBlock]),
        ((4, 6), (1, 2), [BlockMean, ConvBlock]),
    ],
)
def test_the_shortcut_averages_where_it_strides_and_projects_where_channels_change(channels, stride, shortcut):
    block = ResidualBlock(*channels, kernel_size=(3, 3), stride=stride)
    assert [type(layer) for layer in block.skip] == shortcut
    assert block(torch.randn(1, 4, 8, 8)).shape == (1, channels[1], 8 // stride[0], 8 // stride[1])


def test_a_residual_block_begins_as_its_shortcut():
    block = ResidualBlock(4, 4, kernel_size=(3, 3), stride=(1, 1)).apply(initialise)
    image = torch.rand(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(image), image)


def test_a_block_leaves_its_input_alone():
    block = ResidualBlock(4, 4, kernel_size=(3, 3), stride=(1, 1))
    image = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    before = image.clone()
    block(image)
    assert torch.equal(image, before)


def test_initial_weights_are_hes():
    torch.manual_seed(0)
    layer = nn.Conv3d(32, 64, 3).apply(initialise)
    expected = (2 / ((1 + 0.01**2) * 32 * 27)) ** 0.5
    assert layer.weight.std().item() == pytest.approx(expected, rel=0.02)
    assert layer.bias.count_nonzero() == 0

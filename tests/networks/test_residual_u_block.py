"""Residual U-blocks: the published structure, any strides, and the shortcut."""

import pytest
import torch
from torch.nn import functional as F

from segkit.networks.residual_u_block import dilated_u_block, pooled_u_block


def convolutions(*pairs):
    """Parameters of 3 x 3 convolutions with bias and of their normalisations, from (in, out)."""
    return sum(9 * a * b + b + 2 * b for a, b in pairs)


def rsu_parameters(inside, mid, out, *, middle):
    """RSU from its description: the projection, one convolution in, `middle` inside, back up, one out."""
    return convolutions(
        (inside, out), (out, mid), *[(mid, mid)] * middle, *[(2 * mid, mid)] * (middle - 1), (2 * mid, out)
    )


@pytest.mark.parametrize("height", [4, 5, 6, 7])
def test_parameters_of_rsu(height):
    levels = height - 1
    with torch.device("meta"):
        block = pooled_u_block(3, 32, 64, kernel_sizes=[(3, 3)] * levels, strides=[(1, 1)] + [(2, 2)] * (levels - 1))
    # RSU-L has L convolutions on the way down, of which the first is the one in.
    assert sum(p.numel() for p in block.parameters()) == rsu_parameters(3, 32, 64, middle=height - 1)


def test_parameters_of_rsu_4f_are_those_of_rsu_4():
    with torch.device("meta"):
        block = dilated_u_block(512, 256, 512, kernel_size=(3, 3))
    assert sum(p.numel() for p in block.parameters()) == rsu_parameters(512, 256, 512, middle=3)


def drawn(*size):
    return torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def relu_block(block, x, dilation):
    y = F.conv2d(x, block.conv.weight, block.conv.bias, padding=dilation, dilation=dilation)
    return F.relu(F.instance_norm(y, weight=block.norm.weight, bias=block.norm.bias))


def test_rsu_4_is_the_published_sequence():
    torch.manual_seed(0)
    block = pooled_u_block(2, 3, 4, kernel_sizes=[(3, 3)] * 3, strides=[(1, 1), (2, 2), (2, 2)]).double()
    x = drawn(2, 2, 16, 12)
    start = relu_block(block.project, x, 1)
    first = relu_block(block.down[0], start, 1)
    second = relu_block(block.down[1], F.max_pool2d(first, 2), 1)
    third = relu_block(block.down[2], F.max_pool2d(second, 2), 1)
    bottom = relu_block(block.bottom, third, 2)
    up = relu_block(block.up[2], torch.cat((bottom, third), 1), 1)
    up = F.interpolate(up, scale_factor=2, mode="bilinear")
    up = relu_block(block.up[1], torch.cat((up, second), 1), 1)
    up = F.interpolate(up, scale_factor=2, mode="bilinear")
    up = relu_block(block.up[0], torch.cat((up, first), 1), 1)
    torch.testing.assert_close(block(x), up + start)


def test_rsu_4f_is_the_published_sequence():
    torch.manual_seed(0)
    block = dilated_u_block(2, 3, 4, kernel_size=(3, 3)).double()
    x = drawn(2, 2, 11, 13)
    start = relu_block(block.project, x, 1)
    first = relu_block(block.down[0], start, 1)
    second = relu_block(block.down[1], first, 2)
    third = relu_block(block.down[2], second, 4)
    bottom = relu_block(block.bottom, third, 8)
    up = relu_block(block.up[2], torch.cat((bottom, third), 1), 4)
    up = relu_block(block.up[1], torch.cat((up, second), 1), 2)
    up = relu_block(block.up[0], torch.cat((up, first), 1), 1)
    torch.testing.assert_close(block(x), up + start)


def test_a_u_that_says_nothing_leaves_the_projection():
    torch.manual_seed(0)
    block = dilated_u_block(1, 2, 4, kernel_size=(3, 3))
    with torch.no_grad():
        block.up[0].norm.weight.zero_()
        block.up[0].norm.bias.zero_()
        image = torch.randn(1, 1, 9, 9)
        assert torch.equal(block(image), block.project(image))


def test_levels_lie_on_the_grids_of_the_strides():
    block = pooled_u_block(
        1, 2, 4, kernel_sizes=[(1, 3, 3), (3, 3, 3), (3, 3, 3)], strides=[(1, 1, 1), (1, 2, 2), (3, 2, 1)]
    )
    seen = []
    for level in (*block.down, block.bottom, *block.up):
        level.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[2:])))
    assert block(torch.randn(1, 1, 6, 8, 4)).shape == (1, 4, 6, 8, 4)
    fine, middle, coarse = (6, 8, 4), (6, 4, 2), (2, 2, 2)
    assert seen == [fine, middle, coarse, coarse, coarse, middle, fine]

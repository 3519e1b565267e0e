"""Transposed convolution as a matrix product: torch's own as the reference, in numbers, gradients and format."""

import pytest
import torch
from torch import nn

from segkit.networks.instance_norm import CHANNELS_LAST
from segkit.networks.transposed_convolution import TransposedConv2d, TransposedConv3d

LAYER = {2: TransposedConv2d, 3: TransposedConv3d}
THEIRS = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
STRIDES = [(2, 2), (1, 2), (3, 2), (2, 2, 2), (1, 2, 2), (2, 1, 3)]


def pair(stride, dtype):
    torch.manual_seed(0)
    dimensions = len(stride)
    ours = LAYER[dimensions](5, 3, stride).to(dtype)
    theirs = THEIRS[dimensions](5, 3, stride, stride=stride).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs, torch.randn(2, 5, *(3, 4, 2)[:dimensions], dtype=dtype)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("stride", STRIDES)
def test_outputs_and_gradients_are_torchs(stride, last):
    ours, theirs, x = pair(stride, torch.float64)
    mine = x.contiguous(memory_format=CHANNELS_LAST[x.ndim]) if last else x
    mine, x = mine.detach().requires_grad_(), x.requires_grad_()
    found, expected = ours(mine), theirs(x)
    torch.testing.assert_close(found, expected)
    if last:
        assert found.is_contiguous(memory_format=CHANNELS_LAST[x.ndim])
    towards = torch.randn_like(expected)
    found.backward(towards)
    expected.backward(towards)
    torch.testing.assert_close(mine.grad, x.grad)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_derivatives():
    ours, _, x = pair((2, 1, 2), torch.float64)
    x = x[:1].contiguous(memory_format=torch.channels_last_3d).requires_grad_()

    def function(x, weight, bias):
        return torch.func.functional_call(ours, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(function, (x, ours.weight, ours.bias))


def test_under_autocast_it_is_bfloat16_to_rounding():
    ours, theirs, x = pair((2, 2, 2), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = ours(x.contiguous(memory_format=torch.channels_last_3d))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), theirs(x), rtol=2**-6, atol=2**-6)

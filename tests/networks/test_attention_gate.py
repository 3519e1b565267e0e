"""The attention gate and its upsampling."""

import pytest
import torch
from torch.nn import functional as F

from segkit.networks.attention_gate import AttentionGate, upsample_linear


@pytest.mark.parametrize(
    ("size", "factor"), [((4, 5), (2, 2)), ((1, 3), (2, 4)), ((3, 2, 4), (1, 2, 3)), ((2, 2, 1), (2, 2, 2))]
)
def test_upsampling_equals_torch_in_value_and_gradient(size, factor):
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    image.requires_grad_()
    mode = {2: "bilinear", 3: "trilinear"}[len(size)]
    ours, theirs = upsample_linear(image, factor), F.interpolate(image, scale_factor=factor, mode=mode)
    torch.testing.assert_close(ours, theirs)
    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(*(torch.autograd.grad((x * weight).sum(), image)[0] for x in (ours, theirs)))


@pytest.mark.parametrize("stride", [(2, 2), (1, 2, 2)])
def test_attention_lies_between_zero_and_one_on_the_skips_grid(stride):
    torch.manual_seed(0)
    gate = AttentionGate(4, 6, stride=stride)
    coarse = (3, 4, 5)[: len(stride)]
    skip = torch.randn(2, 4, *(c * s for c, s in zip(coarse, stride, strict=True)))
    attention = gate.attention(skip, torch.randn(2, 6, *coarse))
    assert attention.shape == (2, 1, *skip.shape[2:])
    assert attention.min() > 0
    assert attention.max() < 1


def test_a_closed_gate_lets_nothing_through_and_an_open_one_everything():
    torch.manual_seed(0)
    gate = AttentionGate(4, 6, stride=(2, 2))
    skip, signal = torch.randn(1, 4, 8, 8), torch.randn(1, 6, 4, 4)
    with torch.no_grad():
        gate.psi.weight.zero_()
        gate.psi.bias.fill_(50.0)
        torch.testing.assert_close(gate(skip, signal), gate.out(skip))
        gate.psi.bias.fill_(-200.0)
        torch.testing.assert_close(gate(skip, signal), gate.out(torch.zeros_like(skip)))


def test_the_signal_decides():
    torch.manual_seed(0)
    gate = AttentionGate(4, 6, stride=(2, 2))
    skip = torch.randn(1, 4, 8, 8)
    first, second = (gate.attention(skip, torch.randn(1, 6, 4, 4)) for _ in range(2))
    assert not torch.allclose(first, second)

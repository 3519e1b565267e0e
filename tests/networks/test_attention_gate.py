"""The attention gates."""

import pytest
import torch

from segkit.networks.attention_gate import AttentionGate, EqualResolutionGate


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


@pytest.mark.parametrize("size", [(6, 5), (2, 4, 3)])
def test_the_gate_at_equal_resolution_is_its_formula(size):
    torch.manual_seed(0)
    gate = EqualResolutionGate(4, 6, dimensions=len(size)).double()
    with torch.no_grad():
        for parameter in gate.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    skip, signal = (torch.randn(2, c, *size, dtype=torch.float64) for c in (4, 6))
    axes = tuple(range(2, 2 + len(size)))

    def projected(block, features):
        out = torch.einsum("oc...,bc...->bo...", block.conv.weight.flatten(1), features.flatten(2))
        out = out.reshape(2, -1, *size)
        mean, variance = out.mean(axes, keepdim=True), out.var(axes, keepdim=True, correction=0)
        shape = (1, -1, *(1,) * len(size))
        return (out - mean) / (variance + 1e-5).sqrt() * block.norm.weight.view(shape) + block.norm.bias.view(shape)

    logits = projected(gate.psi, (projected(gate.theta, skip) + projected(gate.phi, signal)).clamp(min=0))
    expected = 1 / (1 + torch.exp(-logits))
    torch.testing.assert_close(gate.attention(skip, signal), expected)
    torch.testing.assert_close(gate(skip, signal), skip * expected)
    assert gate.attention(skip, signal).shape == (2, 1, *size)

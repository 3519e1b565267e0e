"""The Mamba layer: names and shapes of mamba_ssm's, the formula, the start."""

import pytest
import torch
from torch.nn import functional as F

from segkit.networks.mamba import Mamba


def test_names_and_shapes_are_those_of_mamba_ssm():
    # mamba_ssm.Mamba(d_model=32): inner 64, dt_rank 2, 16 states, 4 taps.
    assert {name: tuple(each.shape) for name, each in Mamba(32).state_dict().items()} == {
        "A_log": (64, 16),
        "D": (64,),
        "in_proj.weight": (128, 32),
        "conv1d.weight": (64, 1, 4),
        "conv1d.bias": (64,),
        "x_proj.weight": (34, 64),
        "dt_proj.weight": (64, 2),
        "dt_proj.bias": (64,),
        "out_proj.weight": (32, 64),
    }


def test_it_is_the_formula_token_by_token():
    torch.manual_seed(0)
    layer = Mamba(3, d_state=2, d_conv=3).double()
    tokens = torch.randn(2, 9, 3, dtype=torch.float64)
    state, window = torch.zeros(2, 6, 2, dtype=torch.float64), torch.zeros(2, 3, 6, dtype=torch.float64)
    outputs = []
    for t in range(9):
        x, z = (tokens[:, t] @ layer.in_proj.weight.T).split(6, dim=1)
        window = torch.cat((window[:, 1:], x[:, None]), 1)
        u = F.silu((window * layer.conv1d.weight[:, 0].T).sum(1) + layer.conv1d.bias)
        delta, b, c = (u @ layer.x_proj.weight.T).split((1, 2, 2), dim=1)
        step = F.softplus(delta @ layer.dt_proj.weight.T + layer.dt_proj.bias)
        decay = torch.exp(-step[:, :, None] * torch.exp(layer.A_log))
        state = decay * state + (step * u)[:, :, None] * b[:, None]
        y = (state * c[:, None]).sum(2) + layer.D * u
        outputs.append((y * F.silu(z)) @ layer.out_proj.weight.T)
    torch.testing.assert_close(layer(tokens), torch.stack(outputs, 1))


def test_the_start_is_the_published_one():
    torch.manual_seed(0)
    layer = Mamba(64, d_state=5)
    torch.testing.assert_close(-torch.exp(layer.A_log), torch.tensor([-1.0, -2, -3, -4, -5]).expand(128, 5))
    assert torch.equal(layer.D, torch.ones(128))
    assert layer.dt_proj.weight.abs().max() <= 4**-0.5
    steps = F.softplus(layer.dt_proj.bias).detach()
    assert 0.999e-3 <= steps.min() < 2e-3
    assert 0.05 < steps.max() <= 0.1001
    # Uniform in the logarithm: half of the steps lie below the geometric mean of the ends, 0.01.
    assert float((steps < 0.01).float().mean()) == pytest.approx(0.5, abs=0.15)


@torch.no_grad()
def test_half_precision_is_close():
    torch.manual_seed(0)
    layer, tokens = Mamba(16), torch.randn(1, 200, 16)
    exact = layer(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(tokens)
    assert out.dtype == torch.bfloat16
    assert float((out.float() - exact).norm() / exact.norm()) < 0.02

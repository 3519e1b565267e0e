"""Instance normalisation: the formula, its derivatives, torch's own as the reference, and the memory format."""

import pytest
import torch
from torch.nn import functional as F

from segkit.networks.instance_norm import CHANNELS_LAST, InstanceNorm2d, InstanceNorm3d

SIZES = {2: (3, 4, 5, 6), 3: (2, 4, 3, 5, 2)}
NORM = {2: InstanceNorm2d, 3: InstanceNorm3d}


def module(dimensions, dtype=torch.float32):
    norm = NORM[dimensions](4).to(dtype)
    with torch.no_grad():
        norm.weight.uniform_(-2, 2)
        norm.bias.uniform_(-1, 1)
    return norm


def features(dimensions, dtype=torch.float32, *, last):
    out = (torch.randn(SIZES[dimensions], dtype=torch.float64) * 3 + 2).to(dtype)
    return out.contiguous(memory_format=CHANNELS_LAST[out.ndim]) if last else out


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("last", [False, True])
def test_formula(dimensions, last):
    torch.manual_seed(0)
    norm, x = module(dimensions), features(dimensions, last=last)
    axes = tuple(range(2, x.ndim))
    mean, variance = x.mean(axes, keepdim=True), x.var(axes, keepdim=True, correction=0)
    scale, shift = (p.view(1, -1, *(1,) * dimensions) for p in (norm.weight, norm.bias))
    torch.testing.assert_close(norm(x), (x - mean) / (variance + 1e-5).sqrt() * scale + shift)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("last", [False, True])
def test_derivatives(dimensions, last):
    torch.manual_seed(0)
    norm = module(dimensions, torch.float64)
    x = features(dimensions, torch.float64, last=last).requires_grad_()

    def function(x, weight, bias):
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(function, (x, norm.weight, norm.bias))


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-6)])
def test_outputs_and_gradients_are_torchs(dimensions, last, dtype, tolerance):
    torch.manual_seed(0)
    norm, x = module(dimensions), features(dimensions, dtype, last=last)
    towards = torch.randn(x.shape).to(dtype)
    ours, theirs = x.clone().requires_grad_(), x.double().requires_grad_()
    weight, bias = (p.detach().double().requires_grad_() for p in (norm.weight, norm.bias))
    out = norm(ours)
    expected = F.instance_norm(theirs, weight=weight, bias=bias)
    assert out.dtype == dtype
    out.backward(towards)
    expected.backward(towards.double())
    pairs = [(out, expected), (ours.grad, theirs.grad), (norm.weight.grad, weight.grad), (norm.bias.grad, bias.grad)]
    for a, b in pairs:
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("last", [False, True])
def test_the_memory_format_stays_also_of_gradients(dimensions, last):
    norm, x = module(dimensions), features(dimensions, last=last).requires_grad_()
    out = norm(x)
    out.backward(torch.ones(x.shape))
    assert out.stride() == x.stride() == x.grad.stride()


@pytest.mark.parametrize("last", [False, True])
def test_a_sample_does_not_see_its_neighbours(last):
    norm, x = module(3), features(3, last=last)
    torch.testing.assert_close(norm(x)[1:], norm(x[1:]))


@pytest.mark.parametrize("last", [False, True])
def test_an_offset_a_thousand_times_the_spread_is_taken_off(last):
    """Variance as E[x^2] - E[x]^2 would have no digit left here."""
    torch.manual_seed(0)
    x = features(3, torch.float64, last=last)
    norm = module(3)
    exact = module(3, torch.float64)
    exact.load_state_dict(norm.state_dict())
    found = norm((x + 3000).float())
    torch.testing.assert_close(found.double(), exact(x), rtol=0, atol=2e-3)


def test_one_voxel_has_no_statistics():
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        module(3).train()(torch.randn(2, 4, 1, 1, 1))


def test_a_sample_under_autocast_keeps_its_type():
    x = features(3, torch.bfloat16, last=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert module(3)(x).dtype == torch.bfloat16

"""Convolutions of shallow maps: the gradient does not depend on what lay in memory, and is that of float32."""

import pickle

import pytest
import torch
from torch import nn

from segkit.networks.shallow_convolution import ShallowConv3d, guard_shallow_convolutions


def fill_freed_memory():
    """What is allocated next begins as NaN, unless it is written."""
    sizes = [4**power for power in range(3, 11)]
    blocks = [torch.full((size,), torch.nan, dtype=dtype) for size in sizes for dtype in (torch.float, torch.bfloat16)]
    del blocks


@pytest.mark.parametrize(("size", "kernel"), [((2, 2, 2), 3), ((2, 8, 8), 3), ((3, 8, 8), 5), ((4, 8, 8), 5)])
@pytest.mark.parametrize("autocast", [True, False])
def test_the_gradient_of_shallow_maps_is_that_of_single_precision(size, kernel, autocast):
    def convolution():
        return guard_shallow_convolutions(nn.Conv3d(16, 16, kernel, padding=kernel // 2))

    layer = convolution()
    image = torch.randn(2, 16, *size).bfloat16().float()
    with torch.no_grad():
        layer.weight.copy_(layer.weight.bfloat16())
        layer.bias.copy_(layer.bias.bfloat16())
    layer(image).square().sum().backward()
    expected = layer.weight.grad.clone()
    for _ in range(5):
        layer.zero_grad()
        half = layer if autocast else convolution().bfloat16()
        half.load_state_dict(layer.state_dict())
        fill_freed_memory()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            output = half(image if autocast else image.bfloat16())
        assert output.dtype == torch.bfloat16
        fill_freed_memory()
        output.float().square().sum().backward()
        assert half.weight.grad.isfinite().all()
        assert (half.weight.grad.float() - expected).abs().max() < 0.02 * expected.abs().max()


@pytest.mark.parametrize("size", [(1, 8, 8), (3, 8, 8), (8, 2, 2)])
def test_other_maps_are_convolved_as_ever(size):
    plain = nn.Conv3d(4, 4, 3, padding=1)
    guarded = guard_shallow_convolutions(pickle.loads(pickle.dumps(plain)))
    assert type(guarded) is ShallowConv3d
    assert type(pickle.loads(pickle.dumps(guarded))) is ShallowConv3d
    image = torch.randn(1, 4, *size)
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            assert torch.equal(guarded(image), plain(image))


def test_weights_keep_their_names_and_users_their_classes():
    class Theirs(nn.Conv3d):
        pass

    network = nn.Sequential(nn.Conv3d(1, 2, 3), Theirs(2, 2, 3), nn.Conv2d(2, 2, 3))
    before = list(network.state_dict())
    assert guard_shallow_convolutions(network) is network
    assert [type(module) for module in network] == [ShallowConv3d, Theirs, nn.Conv2d]
    assert list(network.state_dict()) == before

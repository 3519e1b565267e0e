"""Memory format: it reaches every feature map, and what is computed stays."""

import pytest
import torch

from segkit.networks.instance_norm import CHANNELS_LAST
from segkit.networks.memory_format import choose_channels_last, to_device
from segkit.networks.residual_unet import ResidualUNet
from segkit.networks.unet import UNet


def network(kind, dimensions, in_channels=1):
    torch.manual_seed(0)
    topology = {
        "dimensions": dimensions,
        "strides": [(1,) * dimensions, (2,) * dimensions],
        "kernel_sizes": [(3,) * dimensions] * 2,
    }
    if kind == "residual":
        return ResidualUNet(in_channels, 3, features=(4, 8), blocks_per_stage=2, **topology)
    return UNet(in_channels, 3, features=(4, 8), attention=kind == "attention", **topology)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("kind", ["plain", "residual", "attention"])
@pytest.mark.parametrize("in_channels", [1, 2])
def test_channels_stay_last_from_the_image_to_the_logits(kind, dimensions, in_channels):
    """Also from images of one channel, whose strides do not say which format they are in."""
    net = to_device(network(kind, dimensions, in_channels), "cpu", channels_last=True)
    order = CHANNELS_LAST[dimensions + 2]
    elsewhere = []

    def look(name):
        def hook(module, inputs, out):
            if not out.is_contiguous(memory_format=order):
                elsewhere.append(name)

        return hook

    for name, module in net.named_modules():
        if not list(module.children()):
            module.register_forward_hook(look(name))
    with torch.autocast("cpu", torch.bfloat16):
        net(torch.randn(2, in_channels, *(8,) * dimensions))
    assert elsewhere == []


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("kind", ["plain", "residual", "attention"])
def test_numbers_do_not_depend_on_it(kind, dimensions):
    first, last = network(kind, dimensions).double(), network(kind, dimensions).double()
    to_device(last, "cpu", channels_last=True)
    image = torch.randn(2, 1, *(10,) * dimensions, dtype=torch.float64)
    for a, b in zip(first(image), last(image), strict=True):
        torch.testing.assert_close(a, b)
        (a.square().mean() + b.square().mean()).backward(retain_graph=True)
    for (name, a), (other, b) in zip(first.named_parameters(), last.named_parameters(), strict=True):
        assert name == other
        torch.testing.assert_close(a.grad, b.grad)


def test_without_it_weights_lie_as_they_were():
    net = to_device(network("plain", 3), "cpu", channels_last=False)
    assert all(parameter.is_contiguous() for parameter in net.parameters())


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_rule(dimensions):
    chosen = {
        (device, precision): choose_channels_last(device, precision, dimensions)
        for device in ("cpu", "cuda", "mps")
        for precision in ("bf16-mixed", "16-mixed", "32-true")
    }
    assert [key for key, (yes, _) in chosen.items() if yes] == [("cpu", "bf16-mixed")]
    assert all(reason for _, reason in chosen.values())

"""Which layers read the image and which write the logits, known by construction."""

import pytest
import torch
from torch import nn

from segkit.networks.ends import find_ends
from segkit.networks.residual_unet import ResidualUNet
from segkit.networks.unet import UNet

TOPOLOGY = {
    "features": (4, 6, 8),
    "strides": ((1, 1), (2, 1), (2, 2)),
    "kernel_sizes": ((3, 1), (3, 3), (3, 3)),
    "dimensions": 2,
}


class TwoStems(nn.Module):
    """Two branches read the image, padded; a convolution of as many channels reads features; dropout draws numbers."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1)
        self.inner, self.head = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 3, 1)
        self.norm, self.drop = nn.BatchNorm2d(2), nn.Dropout(0.5)

    def forward(self, image):
        padded = nn.functional.pad(image, (1, 1, 1, 1))
        features = self.drop(self.norm(self.inner(self.a(image) + self.b(padded)[..., 1:-1, 1:-1])))
        logits = self.head(features)
        return [logits[..., 1:], logits[..., ::2, ::2]] if self.training else logits[..., 1:]


def test_ends_of_the_plain_unet():
    network = UNet(2, 3, **TOPOLOGY)
    assert find_ends(network, in_channels=2, size=(9, 7)) == (
        ("encoder.stages.0.0.convs.0.conv",),
        ("decoder.seg_layers.0", "decoder.seg_layers.1"),
    )


def test_ends_of_the_residual_unet():
    network = ResidualUNet(1, 2, **TOPOLOGY, blocks_per_stage=1, supervised_levels=1)
    ends = find_ends(network, in_channels=1, size=(8, 8))
    assert ends == (("encoder.stem.convs.0.conv",), ("decoder.seg_layers.1",))


def test_a_layer_that_reads_features_of_as_many_channels_does_not_read_the_image():
    assert find_ends(TwoStems(), in_channels=2, size=(6, 6)) == (("a", "b"), ("head",))


def test_logits_that_are_computed_on_have_no_layer():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Softplus())
    assert find_ends(network, in_channels=1, size=(4, 4)) == (("0",), ())


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_left_behind(training):
    network = TwoStems().train(training)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    find_ends(network, in_channels=2, size=(6, 6))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training is training
    assert network.norm.training is training
    assert not any(module._forward_hooks for module in network.modules())

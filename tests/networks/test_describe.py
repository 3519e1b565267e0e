"""A network in numbers: counts by hand, fields by the arithmetic of kernels and strides."""

import pytest
import torch
from torch import nn

from segkit.networks.describe import Description, count_pass, describe, receptive_field
from segkit.networks.residual_unet import ResidualUNet
from segkit.networks.unet import UNet


class Pair(nn.Module):
    """Two convolutions with something between them."""

    def __init__(self, between=None, *, kernel=3, dilation=1):
        super().__init__()
        self.first = nn.Conv2d(2, 4, kernel, padding=kernel // 2 * dilation, dilation=dilation)
        self.between = between or nn.Identity()
        self.second = nn.Conv2d(4, 3, (3, 1), padding=(1, 0))

    def forward(self, image):
        return self.second(self.between(self.first(image)))


def test_operations_and_activations_by_hand():
    operations, activations = count_pass(Pair(), torch.empty(1, 2, 8, 10, device="meta"))
    voxels = 80
    assert operations == 2 * voxels * (4 * 2 * 9 + 3 * 4 * 3)
    assert activations == voxels * (4 + 3)


@pytest.mark.parametrize(
    ("network", "field"),
    [
        (Pair(), (5, 3)),
        (Pair(nn.LeakyReLU(inplace=True)), (5, 3)),
        (Pair(nn.InstanceNorm2d(4, affine=True)), (5, 3)),
        (Pair(nn.MaxPool2d(3, 1, 1)), (7, 5)),
        (Pair(kernel=5, dilation=2), (11, 9)),
        # One coarse voxel covers 2 fine ones, each of which saw 3; the last kernel reads 3 coarse voxels apart by 2.
        (nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.AvgPool2d(2), nn.Conv2d(4, 3, 3, padding=1)), None),
    ],
)
def test_receptive_fields_by_the_arithmetic_of_kernels(network, field):
    if field is None:
        network = nn.Sequential(*network, nn.Upsample(scale_factor=2))
        field = (8, 8)
    assert receptive_field(network, in_channels=2, patch_size=(40, 40)) == field


TOPOLOGY = {"strides": [(1, 1, 1), (1, 2, 2), (2, 2, 2)], "kernel_sizes": [(1, 3, 3), (3, 3, 3), (3, 3, 3)]}


@pytest.mark.parametrize("settings", [{}, {"attention": True}, {"squeeze_excitation": True}], ids=str)
def test_the_field_of_a_u_net_is_that_of_its_strides_and_kernels(settings):
    network = UNet(1, 3, features=(4, 6, 8), dimensions=3, **TOPOLOGY, **settings)
    size = (30, 81, 81)
    found = receptive_field(network, in_channels=1, patch_size=size)
    expected = []
    for axis, length in enumerate(size):
        pairs = [(s[axis], k[axis]) for s, k in zip(TOPOLOGY["strides"], TOPOLOGY["kernel_sizes"], strict=True)]
        low, high = u_net_field_at(pairs, length)
        expected.append(high - low + 1)
    if "attention" not in settings:
        assert found == tuple(expected)
    # A gate reads the coarser level through a linear interpolation: a voxel of it more at most.
    assert all(0 <= a - b <= 8 for a, b in zip(found, expected, strict=True))


def u_net_field_at(pairs, length):
    """The interval of input voxels, relative to the image, that the middle voxel depends on."""
    divisor = 1
    for stride, _ in pairs:
        divisor *= stride
    padded = -(-length // divisor) * divisor
    lead = (padded - length) // 2
    position = lead + length // 2
    # What is read of each level's skip: from the finest down, through the decoder.
    reads = []
    low = high = position
    for level, (_, kernel) in enumerate(pairs[:-1]):
        reach = 2 * (kernel // 2)
        low, high = low - reach, high + reach
        reads.append((low, high))
        stride = pairs[level + 1][0]
        low, high = low // stride, high // stride
    # Back up through the encoder: what a level's features were made of.
    for level in reversed(range(len(pairs))):
        if level < len(pairs) - 1:
            low, high = min(low, reads[level][0]), max(high, reads[level][1])
        stride, kernel = pairs[level]
        reach = kernel // 2
        low, high = (low - reach) * stride - reach, (high + reach) * stride + reach
    return low - lead, high - lead


def test_a_field_larger_than_the_patch_is_the_patch():
    network = UNet(1, 3, features=(4, 6, 8), dimensions=3, **TOPOLOGY)
    assert receptive_field(network, in_channels=1, patch_size=(12, 16, 81))[:2] == (12, 16)


@pytest.mark.parametrize("kind", [UNet, ResidualUNet])
def test_a_network_without_memory_is_told_and_one_with_it_stays_as_it_was(kind):
    extra = {"blocks_per_stage": 2} if kind is ResidualUNet else {}
    with torch.device("meta"):
        bodiless = kind(1, 3, features=(4, 6, 8), dimensions=3, **TOPOLOGY, **extra)
    network = kind(1, 3, features=(4, 6, 8), dimensions=3, **TOPOLOGY, **extra).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    told = [describe(each, in_channels=1, patch_size=(16, 24, 24)) for each in (bodiless, network)]
    assert told[0] == told[1]
    assert told[0].parameters == network.num_parameters()
    assert None not in (told[0].operations, told[0].activations, told[0].receptive_field)
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_operations_grow_with_the_patch_and_not_with_the_machine():
    network = UNet(1, 3, features=(4, 6, 8), dimensions=3, **TOPOLOGY)
    small, large = (describe(network, in_channels=1, patch_size=(s, 16, 16)) for s in (8, 16))
    assert large.operations == 2 * small.operations
    assert large.activations == 2 * small.activations


def test_what_cannot_be_traced_is_left_out_and_said(caplog):
    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, image):
            return image * self.scale if image.sum().item() > 0 else image * 0

    with caplog.at_level("INFO"):
        told = describe(Stubborn(), in_channels=1, patch_size=(8, 8))
    assert (told.parameters, told.operations) == (1, None)
    assert "Stubborn are not counted" in caplog.text
    assert told.text().startswith("0.00 M parameters")


def test_text():
    told = Description(31_196_399, 1_040_000_000_000, 560_000_000, (97, 128, 60), (128, 128, 96))
    assert told.text() == (
        "31.20 M parameters; 1.04 T operations and 560 M activations a patch; receptive field 97 x all x 60"
    )
    assert Description(1000, None, None, (8, 8), (8, 8)).text() == "0.00 M parameters; sees the whole patch"

"""The plain U-Net: structure and parameter counts of nnU-Net's PlainConvUNet."""

import pytest
import torch

from segkit.errors import UsageError
from segkit.networks.unet import UNet


def topology(dimensions, stages):
    return {
        "dimensions": dimensions,
        "strides": [(1,) * dimensions, *[(2,) * dimensions] * (stages - 1)],
        "kernel_sizes": [(3,) * dimensions] * stages,
    }


@pytest.mark.parametrize(
    ("dimensions", "features", "parameters"),
    [
        (3, (32, 64, 128, 256, 320, 320), 31_196_399),
        (2, (32, 64, 128, 256, 512, 512, 512, 512), 46_326_581),
    ],
)
def test_parameter_counts_are_nnunets(dimensions, features, parameters):
    with torch.device("meta"):
        network = UNet(1, 3, features=features, **topology(dimensions, len(features)))
    assert network.num_parameters() == parameters
    assert network.num_heads == len(features) - 1
    assert network.divisor == (2 ** (len(features) - 1),) * dimensions


def test_names_and_shapes_are_nnunets():
    shapes = {n: tuple(p.shape) for n, p in UNet(2, 3, features=(4, 8, 16), **topology(3, 3)).state_dict().items()}
    assert shapes["encoder.stages.0.0.convs.0.conv.weight"] == (4, 2, 3, 3, 3)
    assert shapes["encoder.stages.2.0.convs.1.norm.bias"] == (16,)
    assert shapes["decoder.transpconvs.0.weight"] == (16, 8, 2, 2, 2)
    assert shapes["decoder.stages.0.convs.0.conv.weight"] == (8, 16, 3, 3, 3)
    assert shapes["decoder.stages.1.convs.1.norm.weight"] == (4,)
    assert shapes["decoder.seg_layers.0.weight"] == (3, 8, 1, 1, 1)
    assert shapes["decoder.seg_layers.1.bias"] == (3,)
    # 3 stages x 2 convolutions and 2 x 2 in the decoder, with 4 tensors each; 2 upsamplings and 2 heads with 2 each
    assert len(shapes) == 10 * 4 + 4 * 2


def test_a_level_without_weight_has_no_head():
    full, fewer, single = (
        UNet(1, 3, features=(4, 8, 16, 32), **topology(2, 4), **settings)
        for settings in ({}, {"supervised_levels": 2}, {"deep_supervision": False})
    )
    assert [network.num_heads for network in (full, fewer, single)] == [3, 2, 1]
    head = 3 * (16 + 1)
    assert full.num_parameters() - fewer.num_parameters() == head
    assert len(fewer.train()(torch.randn(1, 1, 16, 16))) == 2
    assert isinstance(single.train()(torch.randn(1, 1, 16, 16)), torch.Tensor)


def test_attention_adds_gates_on_every_skip():
    network = UNet(1, 3, features=(4, 8, 16), **topology(2, 3), attention=True)
    assert len(network.decoder.gates) == 2
    assert len(UNet(1, 3, features=(4, 8, 16), **topology(2, 3)).decoder.gates) == 0


def test_gates_and_excitations_add_the_parameters_of_their_formulas():
    def count(**settings):
        return UNet(1, 3, features=(4, 8, 16), **topology(2, 3), **settings).num_parameters()

    plain = count()
    # Skips of 4 and 8 channels, signals of 8 and 16: theta without bias over the stride 2 x 2, phi and psi with one,
    # W with bias and normalisation.
    grid = [c * (c // 2) * 4 + (2 * c + 1) * (c // 2) + c // 2 + 1 + c * (c + 1) + 2 * c for c in (4, 8)]
    assert count(attention=True) - plain == sum(grid)
    # Skip and upsampled signal both have c channels; three projections without bias, each normalised.
    equal = [2 * (c * (c // 2) + 2 * (c // 2)) + c // 2 + 2 for c in (4, 8)]
    assert count(attention=True, gate="equal_resolution") - plain == sum(equal)
    # One hidden unit after each of three encoder and two decoder stages.
    assert count(squeeze_excitation=True) - plain == sum(3 * c + 1 for c in (4, 8, 16, 4, 8))


def test_a_gate_without_attention_changes_nothing():
    names = [
        list(UNet(1, 3, features=(4, 8, 16), **topology(2, 3), gate=gate).state_dict())
        for gate in ("grid", "equal_resolution")
    ]
    assert names[0] == names[1]


def test_anisotropic_strides_and_kernels():
    network = UNet(
        1,
        2,
        features=[4, 8, 8],
        strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]],
        kernel_sizes=[[1, 3, 3], [1, 3, 3], [3, 3, 3]],
        dimensions=3,
    )
    assert network.divisor == (2, 4, 4)
    full, half = network(torch.randn(1, 1, 4, 8, 8))
    assert full.shape == (1, 2, 4, 8, 8)
    assert half.shape == (1, 2, 4, 4, 4)


def test_a_stage_too_few_is_refused():
    with pytest.raises(UsageError, match="stages do not fit"):
        UNet(1, 3, features=(4, 8, 16, 32), **topology(2, 3))

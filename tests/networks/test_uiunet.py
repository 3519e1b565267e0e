"""UIU-Net: the published structure, nested blocks on the plan's grids, side outputs."""

import pytest
import torch
from torch.nn import functional as F

from segkit.errors import UsageError
from segkit.networks.uiunet import UIUNet, nested_block

PUBLISHED = {3: 50_541_461, 1: 50_540_309}
CHANNEL_NORMALISATIONS = sum(2 * (channels + channels // 4) for channels in (512, 512, 256, 128))
FEATURES = (64, 128, 256, 512, 512, 512)


def topology(dimensions, stages):
    return {
        "dimensions": dimensions,
        "strides": [(1,) * dimensions, *[(2,) * dimensions] * (stages - 1)],
        "kernel_sizes": [(3,) * dimensions] * stages,
    }


def built(in_channels=1, num_classes=3, *, features=(4, 6, 8, 8), **changes):
    torch.manual_seed(0)
    return UIUNet(in_channels, num_classes, features=features, **{**topology(2, len(features)), **changes})


def drawn(*size):
    return torch.randn(size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("in_channels", [1, 3])
def test_parameters_are_the_published_ones_without_the_normalised_channel_weights(in_channels):
    with torch.device("meta"):
        network = built(in_channels, 1, features=FEATURES)
    assert CHANNEL_NORMALISATIONS == 3_520
    assert network.num_parameters() == PUBLISHED[in_channels] - CHANNEL_NORMALISATIONS


def test_parameters_in_three_dimensions_differ_by_the_kernels_alone():
    with torch.device("meta"):
        plane, volume = (UIUNet(1, 3, features=FEATURES, **topology(d, 6)) for d in (2, 3))
    kernels = sum(p.numel() for p in plane.parameters() if p.shape[2:] == (3, 3))
    assert volume.num_parameters() - plane.num_parameters() == 2 * kernels


def test_heights_and_channels_are_the_published_ones():
    with torch.device("meta"):
        network = built(3, 1, features=FEATURES)

    def described(block):
        dilations = [level.conv.dilation[0] for level in block.down]
        pools = [stride[0] for stride in block.strides].count(2)
        sizes = block.project.conv.in_channels, block.bottom.conv.out_channels, block.project.conv.out_channels
        return (f"RSU{pools + 2}" if pools else f"RSU4F {dilations}", *sizes)

    dilated = "RSU4F [1, 2, 4]"
    assert [described(block) for block in network.encoder.stages] == [
        ("RSU7", 3, 32, 64),
        ("RSU6", 64, 32, 128),
        ("RSU5", 128, 64, 256),
        ("RSU4", 256, 128, 512),
        (dilated, 512, 256, 512),
        (dilated, 512, 256, 512),
    ]
    assert [described(block) for block in network.decoder.stages] == [
        ("RSU7", 128, 16, 64),
        ("RSU6", 256, 32, 64),
        ("RSU5", 512, 64, 128),
        ("RSU4", 1024, 128, 256),
        (dilated, 1024, 256, 512),
    ]
    assert [gate.deep[0].in_channels for gate in network.decoder.gates] == [128, 256, 512, 512]
    assert [side.in_channels for side in network.decoder.sides] == [64, 64, 128, 256, 512, 512]


def test_every_nested_block_goes_down_to_the_bottleneck_by_the_plans_strides():
    strides = ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 1))
    kernels = ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3))
    finest, next_, dilated, bottleneck = (
        nested_block(1, 2, 4, stage=stage, strides=strides, kernel_sizes=kernels) for stage in range(4)
    )
    assert finest.strides == strides
    assert next_.strides == ((1, 1, 1), *strides[2:])
    assert [level.conv.kernel_size for level in next_.down] == list(kernels[1:])
    for block in (dilated, bottleneck):
        assert block.strides == ((1, 1, 1),) * 3
        assert block.bottom.conv.dilation == (8, 8, 8)


def test_logits_are_the_sum_of_all_side_outputs():
    network = built(features=(4, 6, 8, 8)).double()
    for mix in network.decoder.mix:
        torch.nn.init.normal_(mix.weight)
    sides = []
    for side in network.decoder.sides:
        side.register_forward_hook(lambda _, __, out: sides.append(out))
    logits, *returned = network(drawn(2, 1, 16, 24).double())
    sides.sort(key=lambda side: -side.shape[2])
    assert [tuple(side.shape[2:]) for side in sides] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert all(torch.equal(a, b) for a, b in zip(returned, sides[1:], strict=True))
    # The published order: upsample, concatenate, one convolution.
    joined = torch.cat([F.interpolate(side, size=(16, 24), mode="bilinear") for side in sides], 1)
    weight = torch.cat([mix.weight for mix in network.decoder.mix], 1)
    torch.testing.assert_close(logits, F.conv2d(joined, weight, network.decoder.mix[0].bias))


def test_logits_begin_as_the_mean_of_the_side_outputs():
    network = built(features=(4, 6, 8))
    sides = []
    for side in network.decoder.sides:
        side.register_forward_hook(lambda _, __, out: sides.append(out))
    logits = network.eval()(drawn(1, 1, 8, 12))
    full = [F.interpolate(side, size=(8, 12), mode="bilinear") for side in sides]
    torch.testing.assert_close(logits, torch.stack(full).mean(0))


def test_the_decoder_meets_the_skip_by_attention_and_at_the_finest_level_by_concatenation():
    network = built(features=(4, 6, 8)).double()
    maps = network.encoder(drawn(1, 1, 8, 8).double())

    def up(features):
        return F.interpolate(features, scale_factor=2, mode="bilinear")

    decoder = network.decoder
    half = decoder.stages[1](decoder.gates[0](up(maps[2]), maps[1]))
    full = decoder.stages[0](torch.cat((up(half), maps[0]), 1))
    sides = [side(features) for side, features in zip(decoder.sides, (full, half, maps[2]), strict=True)]
    _, found_half, found_coarse = decoder(maps, all_heads=True)
    torch.testing.assert_close(found_half, sides[1])
    torch.testing.assert_close(found_coarse, sides[2])
    decoder.mix[0].register_forward_pre_hook(lambda _, inputs: torch.testing.assert_close(inputs[0], sides[0]))
    decoder(maps, all_heads=False)


def test_heads():
    assert built().num_heads == 4
    fewer = built(supervised_levels=2)
    assert [tuple(out.shape[2:]) for out in fewer(drawn(1, 1, 16, 16))] == [(16, 16), (8, 8)]
    # Every side output is read by the finest, so that none is left out with its supervision.
    assert fewer.num_parameters() == built(deep_supervision=False).num_parameters() == built().num_parameters()
    with pytest.raises(UsageError, match="supervised_levels"):
        built(supervised_levels=5)


def test_deep_supervision_can_be_switched_after_building():
    network = built()
    image = drawn(1, 1, 16, 16)
    outputs = network(image)
    network.deep_supervision = False
    torch.testing.assert_close(network(image), outputs[0])


def test_two_stages_and_a_wider_bottleneck():
    network = built(features=(4, 16))
    assert network.encoder.stages[1].project.conv.out_channels == 4
    assert network.eval()(drawn(1, 1, 5, 7)).shape == (1, 3, 5, 7)

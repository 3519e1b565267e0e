"""NNMamba: the published counts, the readings of its mixer, strides by axis, what its settings change."""

import pytest
import torch

from segkit.errors import UsageError
from segkit.networks.nnmamba import ChannelAttention, NNMamba, SequenceMixer

BOTH = ("forward", "backward")
ALL = ("forward", "channels", "backward", "channels_backward")


def build(features, classes, *, strides=None, kernels=None, dimensions=3, **settings):
    """By default one voxel in eight is kept at each stage, with kernels of three."""
    steps = strides or [(1,) * dimensions, *[(2,) * dimensions] * (len(features) - 1)]
    kernels = kernels or [(3,) * dimensions] * len(features)
    return NNMamba(
        1, classes, features=features, strides=steps, kernel_sizes=kernels, dimensions=dimensions, **settings
    )


def mixer(channels=3, dimensions=2, *, directions=BOTH, token_order="last_axis"):
    torch.manual_seed(0)
    return SequenceMixer(channels, dimensions=dimensions, directions=directions, token_order=token_order, d_state=4)


@pytest.mark.parametrize(
    ("width", "classes", "blocks", "published"), [(32, 6, 3, 15_944_958), (16, 3, 2, 2_839_132)], ids=str
)
def test_as_published_it_has_the_published_parameters_and_a_head(width, classes, blocks, published):
    features = (classes, width, 2 * width, 4 * width, 8 * width)
    head = classes * classes + classes
    with torch.device("meta"):
        network = build(features, classes, blocks=blocks, share=True, deep_supervision=False)
        supervised = build(features, classes, blocks=blocks, share=True)
        own = build(features, classes, blocks=blocks, deep_supervision=False)
    assert network.num_parameters() == published + head
    coarse = sum(classes * each + classes for each in features[1:4])
    assert supervised.num_parameters() == published + head + coarse
    # Two 1-voxel convolutions with normalisation, and a Mamba, for each further block of a stage.
    mixers = 0
    for c in features[2:]:
        inner, rank = 2 * c, -(-c // 16)
        mamba = c * 2 * inner + 5 * inner + inner * (rank + 32) + rank * inner + inner + 17 * inner + inner * c
        mixers += mamba + 2 * (c * c + 2 * c)
    assert own.num_parameters() == published + head + (blocks - 2) * mixers


def test_in_two_dimensions_kernels_alone_are_smaller():
    with torch.device("meta"):
        flat, solid = (build((4, 8, 16, 32), 3, dimensions=d) for d in (2, 3))
    assert [n for n, _ in flat.named_parameters()] == [n for n, _ in solid.named_parameters()]
    for one, other in zip(flat.parameters(), solid.parameters(), strict=True):
        assert one.shape == (other.shape[:-1] if other.ndim == 5 else other.shape)


@pytest.mark.parametrize(("stem", "first"), [("strided", 1), ("full", 0)])
def test_every_stage_strides_the_axes_of_the_plan(stem, first):
    strides = [(1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (1, 2, 1)]
    kernels = [(1, 3, 3), (1, 3, 3), *[(3, 3, 3)] * 3]
    network = build((2, 3, 4, 5, 6), 3, strides=strides, kernels=kernels, blocks=2, stem=stem)
    shapes = [tuple(each.shape[1:]) for each in network.encoder(torch.zeros(1, 1, 4, 32, 16))]
    expected = [(2, 4, 32, 16), (3, 4, 16, 8), (4, 4, 8, 4), (5, 2, 4, 2), (6, 2, 2, 2)]
    assert shapes == expected[first:]
    assert len(network.decoder.attentions) == 4 - first
    # The mixers hold 1-voxel kernels; the others those of the plan, whose first stages do not look across slices.
    for stage, kernel in zip(network.encoder.stages, kernels[first + 1 :], strict=True):
        assert tuple(stage.blocks[0].conv1.conv.kernel_size) == kernel


def test_a_plan_of_two_stages_keeps_a_stage_with_mamba():
    network = build((4, 8), 2, dimensions=2)
    assert [tuple(each.shape[1:]) for each in network.encoder(torch.zeros(1, 1, 8, 8))] == [(4, 8, 8), (8, 4, 4)]
    assert len(network.encoder.stages[0].mixers) == 2


def test_blocks_share_a_mixer_or_have_their_own():
    for share, count in ((True, 1), (False, 3)):
        network = build((4,) * 4, 2, blocks=4, share=share)
        assert [len(stage.mixers) for stage in network.encoder.stages] == [count, count]
    stage = build((4,) * 3, 2, blocks=3, share=True, dimensions=2).encoder.stages[0]
    calls = []
    stage.mixers[0].register_forward_pre_hook(lambda *_: calls.append(1))
    stage(torch.randn(1, 4, 8, 8))
    assert len(calls) == 2


def test_readings_are_what_they_are_called():
    mix = mixer(directions=ALL)
    features = torch.randn(2, 3, 4, 5)
    tokens = features.permute(0, 2, 3, 1).reshape(2, 20, 3)  # row by row, the last axis runs fastest
    readings = [
        mix.mamba(tokens),
        mix.mamba(tokens.flip(2)).flip(2),
        mix.mamba(tokens.flip(1)).flip(1),
        mix.mamba(tokens.flip(1, 2)).flip(1, 2),
    ]
    expected = sum(readings) / 4
    torch.testing.assert_close(mix.mixed(features), expected.reshape(2, 4, 5, 3).permute(0, 3, 1, 2))


@pytest.mark.parametrize("size", [(4, 5), (2, 3, 4)], ids=str)
def test_reading_each_axis_reads_rows_along_each(size):
    mix = mixer(dimensions=len(size), token_order="each_axis", directions=("forward",))
    features = torch.randn(1, 3, *size)
    total = torch.zeros_like(features)
    for axis in range(len(size)):
        order = [each for each in range(len(size)) if each != axis] + [axis]
        turned = features.permute(0, 1, *(2 + each for each in order))
        tokens = mix.mamba(turned.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(turned.shape)
        back = [2 + order.index(each) for each in range(len(size))]
        total += tokens.permute(0, 1, *back) / len(size)
    torch.testing.assert_close(mix.mixed(features), total)


def test_read_both_ways_a_turned_map_gives_the_turned_map():
    mix, features = mixer(), torch.randn(1, 3, 4, 5)
    torch.testing.assert_close(mix(features.flip(2, 3)), mix(features).flip(2, 3))
    one_way = mixer(directions=("forward",))
    assert not torch.allclose(one_way(features.flip(2, 3)), one_way(features).flip(2, 3), atol=1e-3)


def test_read_along_each_axis_swapped_axes_give_swapped_axes():
    mix, features = mixer(token_order="each_axis"), torch.randn(1, 3, 4, 5)
    torch.testing.assert_close(mix(features.mT), mix(features).mT)
    along_rows = mixer()
    assert not torch.allclose(along_rows(features.mT), along_rows(features).mT, atol=1e-3)


def test_the_last_voxel_reaches_the_first_only_backward():
    features = torch.randn(1, 3, 4, 5)
    changed = features.clone()
    changed[..., -1, -1] += 1
    for directions, reaches in ((("forward",), False), (BOTH, True)):
        mix = mixer(directions=directions)
        assert torch.equal(mix.mixed(features)[..., 0, 0], mix.mixed(changed)[..., 0, 0]) is not reaches


def test_channel_attention_weights_channels_by_their_means():
    attention = ChannelAttention(32)
    assert attention.squeeze.out_features == 2
    with torch.no_grad():
        attention.squeeze.weight.zero_()
        attention.squeeze.bias.copy_(torch.tensor([2.0, -1.0]))
        attention.excite.weight.zero_()
        attention.excite.weight[0] = torch.tensor([1.0, 100.0])
        attention.excite.bias.zero_()
    features = torch.randn(2, 32, 3, 4)
    weight = torch.full((32,), 0.5)
    weight[0] = 1 / (1 + torch.exp(torch.tensor(-(2.0 + 100 * -0.01))))
    torch.testing.assert_close(attention(features), features * weight[None, :, None, None])


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"blocks": 1}, "network.blocks"),
        ({"directions": ()}, "network.directions"),
        ({"directions": ("forward", "forward")}, "network.directions"),
    ],
    ids=str,
)
def test_settings_that_leave_no_mamba_are_refused(settings, key):
    with pytest.raises(UsageError, match=key):
        build((4, 4), 2, **settings)

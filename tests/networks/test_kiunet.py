"""KiU-Net: the published structure, the limit of its over-complete grid, heads on the U branch."""

import pytest
import torch
from torch.nn import functional as F

from segkit.errors import UsageError
from segkit.networks.checkpointing import checkpoint_stages
from segkit.networks.kiunet import CrossResidualFusion, KiUNet, check_limit, overcomplete_scales

PUBLISHED = 290_658
UNUSED_FUSION = 2 * (9 * 64 * 64 + 64 + 2 * 64)


def topology(dimensions, stages):
    return {
        "dimensions": dimensions,
        "strides": [(1,) * dimensions, *[(2,) * dimensions] * (stages - 1)],
        "kernel_sizes": [(3,) * dimensions] * stages,
    }


def built(in_channels=1, num_classes=3, *, features=(4, 5, 6), seed=0, **changes):
    torch.manual_seed(seed)
    return KiUNet(in_channels, num_classes, features=features, **{**topology(2, len(features)), **changes})


def drawn(*size, seed=1):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def test_parameters_are_the_published_ones_without_the_unused_fusion():
    with torch.device("meta"):
        network = built(1, 2, features=(8, 16, 32, 64), overcomplete_limit=8, deep_supervision=False)
        quarter = built(1, 2, features=(32, 64, 128, 256, 512, 512), width=0.25, levels=3, deep_supervision=False)
        supervised = built(1, 2, features=(8, 16, 32, 64))
    assert network.num_parameters() == PUBLISHED - UNUSED_FUSION == 216_546
    assert quarter.num_parameters() == 216_546
    assert supervised.num_parameters() == 216_546 + 2 * (16 + 1) + 2 * (32 + 1)


def test_parameters_in_three_dimensions_differ_by_the_kernels_alone():
    with torch.device("meta"):
        plane, volume = (
            KiUNet(1, 2, features=(8, 16, 32, 64), **topology(d, 4), deep_supervision=False) for d in (2, 3)
        )
    kernels = sum(p.numel() for p in plane.parameters() if p.shape[2:] == (3, 3))
    assert volume.num_parameters() - plane.num_parameters() == 2 * kernels


def reference(network, image, *, limits):
    """The published 2D network of three levels, with torch's functions and the network's weights."""

    def block(part, x, resize):
        y = resize(F.conv2d(x, part.conv.weight, part.conv.bias, padding=1))
        return F.relu(F.instance_norm(y, weight=part.norm.weight, bias=part.norm.bias))

    def stage(twin, u, ki, u_resize, ki_resize):
        u, ki = block(twin.u, u, u_resize), block(twin.ki, ki, ki_resize)
        if twin.fusion is None:
            return u, ki
        read_ki, read_u = block(twin.fusion.to_u, ki, lambda x: x), block(twin.fusion.to_ki, u, lambda x: x)
        return (
            u + F.interpolate(read_ki, size=u.shape[2:], mode="bilinear"),
            ki + F.interpolate(read_u, size=ki.shape[2:], mode="bilinear"),
        )

    def pool(x):
        return F.max_pool2d(x, 2)

    def double(x):
        return F.interpolate(x, scale_factor=2, mode="bilinear")

    def same(x):
        return x

    u, ki, skips = image, image, []
    for level, twin in enumerate(network.encoder.stages, start=1):
        u, ki = stage(twin, u, ki, pool, double if 2**level <= limits else same)
        skips.append((u, ki))
    skips.pop()
    heads = []
    for level, twin in zip((2, 1, 0), network.decoder.stages, strict=True):
        u, ki = stage(twin, u, ki, double, pool if 2 ** (level + 1) <= limits else same)
        if skips:
            skip_u, skip_ki = skips.pop()
            u, ki = u + skip_u, ki + skip_ki
        head = network.decoder.seg_layers[str(2 - level)]
        heads.insert(0, F.conv2d(u if level else u + ki, head.weight, head.bias))
    return heads


@pytest.mark.parametrize("limit", [1, 2, 4, 8])
def test_it_is_the_published_network_up_to_its_limit(limit):
    network = built(2, features=(4, 5, 6, 7), overcomplete_limit=limit).double()
    image = drawn(2, 2, 16, 24).double()
    for ours, theirs in zip(network(image), reference(network, image, limits=limit), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("strides", "limit", "expected"),
    [
        ([(1, 1), (2, 2), (2, 2), (2, 2)], (8, 8), ((1, 1), (2, 2), (4, 4), (8, 8))),
        ([(1, 1), (2, 2), (2, 2), (2, 2)], (2, 4), ((1, 1), (2, 2), (2, 4), (2, 4))),
        ([(1, 1, 1), (1, 2, 2), (2, 2, 2)], (1, 8, 3), ((1, 1, 1), (1, 2, 2), (1, 4, 2))),
        ([(1, 1), (3, 2), (2, 1)], (4, 1), ((1, 1), (3, 1), (3, 1))),
    ],
)
def test_scales_grow_by_the_strides_up_to_the_limit(strides, limit, expected):
    assert overcomplete_scales(strides, limit) == expected


def test_grids_of_both_branches():
    network = built(
        dimensions=3,
        strides=[(1, 1, 1), (1, 2, 2), (2, 2, 2)],
        kernel_sizes=[(1, 3, 3), (3, 3, 3), (3, 3, 3)],
        overcomplete_limit=[1, 4, 2],
    )
    grids = []
    for stage in (*network.encoder.stages, *network.decoder.stages):
        stage.register_forward_hook(lambda _, __, out: grids.append(tuple(tuple(x.shape[2:]) for x in out)))
    network(drawn(1, 1, 4, 8, 8))
    assert grids == [
        ((4, 4, 4), (4, 16, 16)),
        ((2, 2, 2), (4, 32, 16)),
        ((4, 4, 4), (4, 16, 16)),
        ((4, 8, 8), (4, 8, 8)),
    ]


def test_both_branches_read_each_other_as_they_were_before():
    torch.manual_seed(0)
    fusion = CrossResidualFusion(3, kernel_size=(3, 3), ratio=(2, 4))
    u, ki = drawn(1, 3, 4, 4), drawn(1, 3, 8, 16, seed=2)
    new_u, new_ki = fusion(u, ki)
    torch.testing.assert_close(new_u, u + F.interpolate(fusion.to_u(ki), size=(4, 4), mode="bilinear"))
    torch.testing.assert_close(new_ki, ki + F.interpolate(fusion.to_ki(u), size=(8, 16), mode="bilinear"))


def test_logits_have_both_signs():
    logits = built().eval()(drawn(1, 1, 16, 16))
    assert logits.min() < 0 < logits.max()


def test_levels_cut_the_plan_and_width_its_features():
    network = built(features=(32, 64, 128, 256, 320), width=0.125, levels=2)
    assert [stage.u.conv.out_channels for stage in network.encoder.stages] == [8, 16]
    assert network.divisor == (4, 4)
    assert network.num_heads == 2
    assert built(features=(4, 5, 6), levels=7).divisor == (4, 4)
    # Never less than four channels.
    assert built(features=(8, 8), width=0.1).encoder.stages[0].u.conv.out_channels == 4


def test_heads_are_on_the_u_branch():
    network = built(features=(4, 5, 6, 7))
    outputs = network(drawn(1, 1, 16, 16))
    assert [tuple(output.shape[2:]) for output in outputs] == [(16, 16), (8, 8), (4, 4)]
    assert built(features=(4, 5, 6, 7), supervised_levels=2).num_heads == 2
    # A plan of more stages may ask for more levels than are built.
    assert built(features=(4, 5, 6, 7), levels=2, supervised_levels=3).num_heads == 2
    network.deep_supervision = False
    torch.testing.assert_close(network(drawn(1, 1, 16, 16)), outputs[0])


@pytest.mark.parametrize("limit", [0, 9, (2,), (2, 2, 2), (0, 2)])
def test_limits_that_make_no_sense_are_refused(limit):
    with pytest.raises(UsageError, match=r"network\.overcomplete_limit"):
        check_limit(limit, 2)


def test_a_limit_for_all_axes_or_by_axis():
    assert check_limit(2, 3) == (2, 2, 2)
    assert check_limit([1, 4], 2) == (1, 4)


def test_recomputed_stages_give_the_same_gradients_to_the_bit():
    gradients = []
    for network in (built(), checkpoint_stages(built())):
        outputs = network(drawn(2, 1, 11, 14))
        sum(output.square().sum() for output in outputs).backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))

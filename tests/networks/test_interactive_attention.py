"""Interactive-cross attention: its formula, its weights, its size."""

import pytest
import torch
from torch.nn import functional as F

from segkit.networks.interactive_attention import InteractiveCrossAttention

CONVOLVE = {2: F.conv2d, 3: F.conv3d}


def built(channels, kernel_size, seed=0):
    torch.manual_seed(seed)
    return InteractiveCrossAttention(channels, kernel_size=kernel_size).double()


def drawn(*size, seed):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reference(network, deep, skip):
    """The published formula, with torch's functions."""
    axes = deep.ndim - 2
    w = dict(network.named_parameters())

    def convolve(name, x):
        weight = w[f"{name}.weight"]
        return CONVOLVE[axes](x, weight, w.get(f"{name}.bias"), padding=tuple(k // 2 for k in weight.shape[2:]))

    def block(name, x):
        return F.relu(F.instance_norm(convolve(f"{name}.0", x), weight=w[f"{name}.1.weight"], bias=w[f"{name}.1.bias"]))

    h = block("deep", deep)
    means = F.adaptive_avg_pool2d(h, 1) if axes == 2 else F.adaptive_avg_pool3d(h, 1)
    t = torch.sigmoid(convolve("excite", F.leaky_relu(convolve("squeeze", means), 0.01)))
    b = block("reduce", skip * t)
    s = torch.sigmoid(convolve("locate", torch.cat((b.mean(1, keepdim=True), b.max(1, keepdim=True)[0]), 1)))
    return torch.cat((block("post", 2 * skip * t), block("post", 2 * h * s)), 1)


@pytest.mark.parametrize(("size", "kernel"), [((7, 5), (3, 3)), ((3, 5, 4), (1, 3, 3))])
def test_it_is_the_formula(size, kernel):
    network = built(8, kernel)
    deep, skip = drawn(2, 8, *size, seed=1), drawn(2, 8, *size, seed=2)
    out = network(deep, skip)
    assert out.shape == (2, 16, *size)
    torch.testing.assert_close(out, reference(network, deep, skip))


def test_weights_lie_between_zero_and_one_where_they_belong():
    network = built(4, (3, 3))
    deep, skip = drawn(2, 4, 6, 9, seed=1), drawn(2, 4, 6, 9, seed=2)
    channels, voxels = network.channel_weights(deep), network.voxel_weights(skip)
    assert channels.shape == (2, 4, 1, 1)
    assert voxels.shape == (2, 1, 6, 9)
    for weights in (channels, voxels):
        assert weights.min() > 0
        assert weights.max() < 1


def test_each_side_weights_the_other():
    network = built(4, (3, 3))
    deep, skip = drawn(1, 4, 6, 6, seed=1), drawn(1, 4, 6, 6, seed=2)
    other_deep, other_skip = network(drawn(1, 4, 6, 6, seed=3), skip), network(deep, drawn(1, 4, 6, 6, seed=4))
    out = network(deep, skip)
    # The skip's half changes with the deep features, the deep half with the skip.
    assert not torch.allclose(out[:, :4], other_deep[:, :4])
    assert not torch.allclose(out[:, 4:], other_skip[:, 4:])


@pytest.mark.parametrize(("channels", "published"), [(512, 2_823_442), (256, 707_218), (128, 177_490)])
def test_parameters_are_the_published_ones_without_two_normalisations(channels, published):
    with torch.device("meta"):
        network = InteractiveCrossAttention(channels, kernel_size=(3, 3))
    normalisations = 2 * (channels + channels // 4)
    assert sum(p.numel() for p in network.parameters()) == published - normalisations


def test_the_last_channels_of_a_narrow_stage_have_a_bottleneck_too():
    assert built(2, (3, 3)).squeeze.out_channels == 1

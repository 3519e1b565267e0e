"""Grids: what is padded, what is cropped, which topologies are refused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from segkit.errors import UsageError
from segkit.networks.encoder_decoder import (
    EncoderDecoder,
    check_topology,
    count_heads,
    cumulative_strides,
    inner_size,
    level_slices,
    per_stage,
)


@pytest.mark.parametrize(
    ("size", "divisor", "expected"),
    [
        ((64, 64), (16, 16), (64, 64)),
        ((50, 70), (16, 16), (64, 80)),
        ((24, 40, 20), (8, 16, 16), (24, 48, 32)),
        ((1, 1, 1), (4, 8, 8), (4, 8, 16)),  # one bottleneck voxel is doubled
        ((8, 8), (8, 8), (8, 16)),
    ],
)
def test_inner_size(size, divisor, expected):
    assert inner_size(size, divisor) == expected


@settings(deadline=None, derandomize=True, database=None)
@given(st.integers(1, 200), st.sampled_from([1, 2, 3, 4, 8, 16, 32]), st.sampled_from([1, 2, 4]))
def test_slices_of_a_level_lie_on_the_grid_and_over_the_image(have, step, more):
    divisor = step * more
    padded = inner_size((have, 1), (divisor, divisor))[0]
    before = (padded - have) // 2
    (part,) = level_slices((have,), (before,), (step,))
    count = part.stop - part.start
    assert 0 <= part.start < part.stop <= padded // step
    assert count == max(1, int(have / step + 0.5))
    # Centres agree to half a voxel of the level.
    assert abs((part.start + part.stop) / 2 * step - (before + have / 2)) <= step / 2
    if step == 1:
        assert (part.start, part.stop) == (before, before + have)


def test_cumulative_strides():
    assert cumulative_strides([(1, 1, 1), (1, 2, 2), (2, 2, 2)]) == ((1, 1, 1), (1, 2, 2), (2, 4, 4))


class Pool(nn.Module):
    """An encoder without weights: means over blocks."""

    def forward(self, image):
        return [image, nn.functional.avg_pool2d(image, 2), nn.functional.avg_pool2d(image, 4)]


class Pass(nn.Module):
    """A decoder that returns its inputs."""

    def forward(self, maps, *, all_heads):
        return maps[:2] if all_heads else maps[:1]


def test_padding_is_undone():
    network = EncoderDecoder(Pool(), Pass(), strides=[(1, 1), (2, 2), (2, 2)], num_heads=2, deep_supervision=True)
    image = torch.randn(2, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    full, half = network.train()(image)
    assert torch.equal(full, image)
    assert half.shape == (2, 3, 4, 5)
    assert torch.equal(network.eval()(image), image)
    # 8 x 8 needs no padding: the level is the pooled image itself.
    network.train()
    image = image[:, :, :, :8].repeat(1, 1, 2, 1)[:, :, :8]
    torch.testing.assert_close(network(image)[1], nn.functional.avg_pool2d(image, 2))


def test_padding_adds_no_value_that_was_not_there():
    seen = []

    class Spy(Pool):
        def forward(self, image):
            seen.append(image)
            return super().forward(image)

    network = EncoderDecoder(Spy(), Pass(), strides=[(1, 1), (2, 2), (2, 2)], num_heads=2, deep_supervision=True)
    image = torch.tensor([[[[5.0, 7.0]]]])
    network(image)
    assert seen[0].shape == (1, 1, 4, 8)
    assert set(seen[0].unique().tolist()) == {5.0, 7.0}


@pytest.mark.parametrize(
    ("dimensions", "features", "strides", "kernels"),
    [
        (2, [4], [(1, 1)], [(3, 3)]),
        (2, [4, 8], [(1, 1)], [(3, 3), (3, 3)]),
        (2, [4, 8], [(1, 1), (2, 2)], [(3, 3)]),
        (3, [4, 8], [(1, 1), (2, 2)], [(3, 3), (3, 3)]),
        (4, [4, 8], [(1,) * 4, (2,) * 4], [(3,) * 4] * 2),
        (2, [4, 8], [(2, 2), (2, 2)], [(3, 3), (3, 3)]),
        (2, [4, 8], [(1, 1), (2, 2)], [(3, 3), (2, 3)]),
    ],
)
def test_topologies_that_do_not_fit_are_refused(dimensions, features, strides, kernels):
    with pytest.raises(UsageError, match=r"plan\."):
        check_topology(dimensions, features, strides, kernels)


def test_a_topology_from_json_becomes_tuples():
    assert check_topology(2, [4, 8], [[1, 1], [2, 2]], [[3, 3], [1, 3]]) == (((1, 1), (2, 2)), ((3, 3), (1, 3)))


def test_heads():
    assert count_heads(6, deep_supervision=True, supervised_levels=None) == 5
    assert count_heads(6, deep_supervision=True, supervised_levels=4) == 4
    assert count_heads(6, deep_supervision=False, supervised_levels=4) == 1
    for levels in (0, 6):
        with pytest.raises(UsageError, match="supervised_levels"):
            count_heads(6, deep_supervision=True, supervised_levels=levels)


def test_per_stage():
    assert per_stage(2, 3, name="x") == (2, 2, 2)
    assert per_stage([1, 2, 3], 3, name="x") == (1, 2, 3)
    for value in ([1, 2], 0, [1, 0, 1]):
        with pytest.raises(UsageError, match=r"network\.x"):
            per_stage(value, 3, name="x")

"""Encoders: one map a stage, finest first, on the right grids."""

import pytest
import torch

from segkit.networks.encoder import PlainEncoder, ResidualEncoder

STRIDES = [(1, 1, 1), (1, 2, 2), (2, 2, 2)]
KERNELS = [(1, 3, 3), (3, 3, 3), (3, 3, 3)]


@pytest.mark.parametrize(
    "encoder",
    [
        PlainEncoder(2, [3, 4, 5], strides=STRIDES, kernel_sizes=KERNELS, convolutions_per_stage=[1, 2, 1]),
        ResidualEncoder(2, [3, 4, 5], strides=STRIDES, kernel_sizes=KERNELS, blocks_per_stage=[1, 2, 1]),
    ],
    ids=["plain", "residual"],
)
def test_maps(encoder):
    maps = encoder(torch.randn(1, 2, 4, 8, 8))
    assert [tuple(m.shape[1:]) for m in maps] == [(3, 4, 8, 8), (4, 4, 4, 4), (5, 2, 2, 2)]

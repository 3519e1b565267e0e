"""The decoder: which heads there are, under which names, and which are computed."""

import pytest
import torch

from segkit.networks.decoder import UNetDecoder


def decoder(heads, gate=None, squeeze_excitation=False):
    return UNetDecoder(
        [2, 3, 4, 5],
        7,
        strides=[(1, 1), (2, 1), (2, 2), (2, 2)],
        kernel_sizes=[(3, 3)] * 4,
        convolutions_per_stage=[1, 2, 1],
        num_heads=heads,
        gate=gate,
        squeeze_excitation=squeeze_excitation,
    )


def maps():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, c, *s, generator=generator) for c, s in ((2, (8, 8)), (3, (4, 8)), (4, (2, 4)), (5, (1, 2)))]


@pytest.mark.parametrize("squeeze_excitation", [False, True])
@pytest.mark.parametrize("gate", [None, "grid", "equal_resolution"])
@pytest.mark.parametrize("heads", [1, 2, 3])
def test_heads_are_those_declared_finest_first(heads, gate, squeeze_excitation):
    outputs = decoder(heads, gate, squeeze_excitation)(maps(), all_heads=True)
    assert [tuple(o.shape[1:]) for o in outputs] == [(7, 8, 8), (7, 4, 8), (7, 2, 4)][:heads]


def test_the_finest_head_alone_is_the_first_of_all():
    network = decoder(3)
    (finest,) = network(maps(), all_heads=False)
    assert torch.equal(finest, network(maps(), all_heads=True)[0])


def test_names_of_heads_do_not_depend_on_how_many_there_are():
    names = {heads: {n for n in decoder(heads).state_dict() if "seg_layers" in n} for heads in (1, 3)}
    assert names[1] == {"seg_layers.2.weight", "seg_layers.2.bias"}
    assert names[1] < names[3]
    assert "seg_layers.0.weight" in names[3]

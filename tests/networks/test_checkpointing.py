"""Stages computed again: the same numbers to the bit, the same names, and what does not fit is refused."""

import pytest
import torch
from torch import nn

from segkit.errors import UsageError
from segkit.losses.cross_entropy import CrossEntropyLoss
from segkit.losses.deep_supervision import DeepSupervision
from segkit.networks.checkpointing import Recomputing, checkpoint_stages
from segkit.networks.nnmamba import NNMamba
from segkit.networks.residual_unet import ResidualUNet
from segkit.networks.uiunet import UIUNet
from segkit.networks.unet import UNet
from segkit.types import Target

STAGES = {"features": (4, 6, 8), "strides": [(1, 1), (2, 2), (2, 2)], "kernel_sizes": [(3, 3)] * 3, "dimensions": 2}
NETWORKS = {
    "plain": lambda: UNet(1, 3, **STAGES),
    "attention": lambda: UNet(1, 3, **STAGES, attention=True),
    "gated and excited": lambda: UNet(1, 3, **STAGES, attention=True, gate="equal_resolution", squeeze_excitation=True),
    "one head": lambda: UNet(1, 3, **STAGES, deep_supervision=False),
    "residual": lambda: ResidualUNet(1, 3, **STAGES, blocks_per_stage=2),
    "nnmamba": lambda: NNMamba(1, 3, **STAGES),
    "nested": lambda: UIUNet(1, 3, **STAGES),
}


@pytest.fixture(params=NETWORKS)
def pair(request):
    """The same network twice, the second one with recomputed stages."""
    networks = []
    for _ in range(2):
        torch.manual_seed(0)
        networks.append(NETWORKS[request.param]())
    return networks[0], checkpoint_stages(networks[1])


def trained_once(network, *, bf16=False):
    """Loss and gradients of one batch of an odd size."""
    draw = torch.Generator().manual_seed(1)
    image = torch.randn(2, 1, 22, 19, generator=draw)
    label = torch.randint(0, 3, (2, 1, 22, 19), generator=draw)
    torch.manual_seed(2)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        loss = DeepSupervision(CrossEntropyLoss())(network.train()(image), Target(label=label))
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in network.named_parameters()}


def assert_equal(one, other):
    assert torch.equal(one[0], other[0])
    assert one[1].keys() == other[1].keys()
    assert [name for name in one[1] if not torch.equal(one[1][name], other[1][name])] == []


@pytest.mark.parametrize("bf16", [False, True])
def test_loss_and_gradients_are_equal_to_the_bit(pair, bf16):
    assert_equal(trained_once(pair[0], bf16=bf16), trained_once(pair[1], bf16=bf16))


def with_dropout(network):
    """Dropout at the end of every stage, so inside of what is computed twice."""
    for part in (network.encoder, network.decoder):
        for index, stage in enumerate(part.stages):
            part.stages[index] = nn.Sequential(stage, nn.Dropout(0.3))
    return network


def test_dropout_falls_on_the_same_features_again(pair):
    assert_equal(trained_once(with_dropout(pair[0])), trained_once(with_dropout(pair[1])))


def test_each_stage_runs_twice_in_training_and_once_in_evaluation(pair):
    calls = []
    pair[1].encoder.stages[0].register_forward_pre_hook(lambda *_: calls.append(1))
    trained_once(pair[1])
    assert len(calls) == 2
    pair[1].eval()(torch.zeros(1, 1, 16, 16))
    assert len(calls) == 3
    with torch.no_grad():
        pair[1].train()(torch.zeros(1, 1, 16, 16))
    assert len(calls) == 4


def test_names_values_and_evaluation_stay(pair):
    states = [network.state_dict() for network in pair]
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    image = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(3))
    assert torch.equal(pair[0].eval()(image), pair[1].eval()(image))


def test_it_can_be_switched_off_again(pair):
    off = checkpoint_stages(pair[1], on=False)
    assert not any(part.recompute for part in off.modules() if isinstance(part, Recomputing))


def test_a_network_without_stages_is_refused():
    with pytest.raises(UsageError, match="Conv2d has no stages"):
        checkpoint_stages(nn.Conv2d(1, 1, 1))
    checkpoint_stages(nn.Conv2d(1, 1, 1), on=False)


def test_running_statistics_are_refused():
    network = UNet(1, 2, **STAGES)
    network.encoder.stages[0].append(nn.BatchNorm2d(4))
    with pytest.raises(UsageError, match="BatchNorm2d of UNet keeps running statistics"):
        checkpoint_stages(network)

"""Who normalises over the batch, and over how many values, without running anything."""

import pytest
import torch
from torch import nn

from segkit.networks.batch_statistics import FEW, fewest_values, warn_of_few_values


def pyramid(norm=nn.BatchNorm2d, **settings):
    """Two levels: the second has a quarter of the voxels."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), norm(4, **settings), nn.Conv2d(4, 8, 2, stride=2), norm(8, **settings)
    )


def looked_at(network, *, batch_size=2, patch_size=(8, 6)):
    return fewest_values(network, in_channels=1, batch_size=batch_size, patch_size=patch_size)


@pytest.mark.parametrize(("batch", "patch"), [(2, (8, 6)), (1, (4, 4)), (3, (10, 2))])
def test_values_are_those_of_batch_and_voxels_of_the_coarsest_map(batch, patch):
    coarse = (patch[0] // 2) * (patch[1] // 2)
    assert looked_at(pyramid(), batch_size=batch, patch_size=patch) == ("3", batch * coarse)


@pytest.mark.parametrize(
    "network",
    [pyramid(nn.InstanceNorm2d), pyramid(nn.SyncBatchNorm), pyramid(track_running_stats=False), nn.Conv2d(1, 2, 1)],
    ids=["by sample", "over all devices", "no running means", "none"],
)
def test_others_are_not_counted(network):
    assert looked_at(network) is None


def test_the_network_stays_as_it_was():
    network = pyramid().train()
    network[1].eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert looked_at(network) is not None
    assert [part.training for part in network] == [True, False, True, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(part._forward_pre_hooks for part in network)


def test_a_network_that_cannot_run_without_memory_is_left_alone():
    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(1)

        def forward(self, image):
            return self.norm(image) if float(image.sum()) > 0 else image

    assert looked_at(Looks()) is None


def test_a_warning_names_the_layer_the_number_and_what_to_do():
    settings = {"in_channels": 1, "patch_size": (8, 6)}
    (line,) = warn_of_few_values(pyramid(), batch_size=2, **settings)
    assert line.startswith("3 normalises over the batch, and 2 patches on a device leave it 24 values")
    assert "plan.batch_size" in line
    enough = -(-FEW // 12)
    assert warn_of_few_values(pyramid(), batch_size=enough, **settings) == []

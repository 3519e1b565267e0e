"""nnU-Net's own checkpoints, read without nnU-Net: the same logits; and what they say of themselves."""

import itertools

import pytest
import torch
from safetensors.torch import load_file
from tests.weights.kinds import CHANNELS, CLASSES, FOLDER, NAMES, network_of

from segkit.weights.files import read_weights
from segkit.weights.nnunet import axes_of
from segkit.weights.transfer import refuse_inexact, transfer


def turned(image, axes):
    return image if axes is None else image.permute(0, 1, *(2 + axis for axis in axes))


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_of_nnunet_gives_the_same_logits(name):
    source, stored = read_weights(FOLDER / f"{name}.pth"), load_file(FOLDER / f"{name}.safetensors")
    network = network_of(source)
    found = transfer(network, source, channels=CHANNELS, classes=CLASSES, patch_size=(16,) * (stored["image"].ndim - 2))
    refuse_inexact(found, source)
    network.load_state_dict(found.state)
    with torch.no_grad():
        logits = network.eval()(turned(stored["image"], source.axes))
    expected = turned(stored["logits"], source.axes)
    assert logits.shape == expected.shape
    assert float((logits - expected).abs().max()) < 1e-5
    assert float(expected.abs().max()) > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_what_a_checkpoint_says(name):
    source = read_weights(FOLDER / f"{name}.pth")
    assert source.layout == "nnunet"
    assert (source.channels, source.classes) == (CHANNELS, CLASSES)
    assert "nnUNetTrainer" in source.told
    assert not any("all_modules" in key or "decoder.encoder" in key for key in source.tensors)


def test_the_axes_of_a_volume():
    """An axis is where its voxels lie: an image numbered by its axes, turned as nnU-Net does, is turned back."""
    for forward in itertools.permutations(range(3)):
        xyz = torch.arange(2 * 3 * 4).reshape(2, 3, 4)
        theirs = xyz.permute(2, 1, 0).permute(*forward)
        axes = axes_of(3, forward)
        assert torch.equal(theirs.permute(*axes) if axes else theirs, xyz)
    assert axes_of(3, (0, 1, 2)) == (2, 1, 0)
    assert axes_of(3, (2, 1, 0)) is None
    assert axes_of(2, (0, 1, 2)) is None
    assert axes_of(2, (0, 2, 1)) == (1, 0)
    with pytest.raises(ValueError, match="transpose_forward"):
        axes_of(3, (0, 0, 1))


def test_overrides_build_the_topology_in_the_order_of_segkits_axes():
    """plain_3d strides (z, y, x) by (1, 2, 2): segkit's (x, y, z) by (2, 2, 1)."""
    source = read_weights(FOLDER / "plain_3d.pth")
    assert source.axes == (2, 1, 0)
    assert source.overrides == (
        "network=unet",
        "plan.features=[4,6,6]",
        "plan.strides=[[1,1,1],[2,2,1],[2,2,2]]",
        "plan.kernel_sizes=[[3,3,1],[3,3,3],[3,3,3]]",
    )
    assert "plan.blocks_per_stage=[1,2,1]" in read_weights(FOLDER / "residual_2d.pth").overrides

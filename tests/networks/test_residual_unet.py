"""The residual-encoder U-Net: structure and parameter counts of nnU-Net's ResidualEncoderUNet."""

import pytest
import torch

from segkit.errors import UsageError
from segkit.networks.residual_unet import ResidualUNet


def topology(dimensions, stages):
    return {
        "dimensions": dimensions,
        "strides": [(1,) * dimensions, *[(2,) * dimensions] * (stages - 1)],
        "kernel_sizes": [(3,) * dimensions] * stages,
    }


@pytest.mark.parametrize(
    ("dimensions", "features", "blocks", "parameters"),
    [
        (3, (32, 64, 128, 256, 320, 320), (1, 3, 4, 6, 6, 6), 102_350_575),
        (2, (32, 64, 128, 256, 512, 512, 512, 512), (1, 3, 4, 6, 6, 6, 6, 6), 140_019_061),
    ],
)
def test_parameter_counts_are_nnunets(dimensions, features, blocks, parameters):
    with torch.device("meta"):
        network = ResidualUNet(1, 3, features=features, blocks_per_stage=blocks, **topology(dimensions, len(features)))
    assert network.num_parameters() == parameters


def test_names_and_shapes_are_nnunets():
    network = ResidualUNet(2, 3, features=(4, 8), blocks_per_stage=(1, 2), **topology(3, 2))
    shapes = {name: tuple(p.shape) for name, p in network.state_dict().items()}
    assert shapes["encoder.stem.convs.0.conv.weight"] == (4, 2, 3, 3, 3)
    assert shapes["encoder.stages.1.blocks.0.conv1.conv.weight"] == (8, 4, 3, 3, 3)
    assert shapes["encoder.stages.1.blocks.1.conv2.norm.weight"] == (8,)
    # Entry 0 of a strided shortcut is the mean over blocks.
    assert shapes["encoder.stages.1.blocks.0.skip.1.conv.weight"] == (8, 4, 1, 1, 1)
    assert "encoder.stages.1.blocks.0.skip.1.conv.bias" not in shapes
    assert not any(name.startswith("encoder.stages.0.blocks.0.skip") for name in shapes)
    assert shapes["decoder.stages.0.convs.0.conv.weight"] == (4, 8, 3, 3, 3)
    assert "decoder.stages.0.convs.1.conv.weight" not in shapes


def test_squeeze_excitation_weights_each_block_and_each_decoder_stage():
    plain, weighted = (
        ResidualUNet(1, 3, features=(4, 8), blocks_per_stage=(1, 2), **topology(2, 2), squeeze_excitation=on)
        for on in (False, True)
    )
    assert weighted.num_parameters() - plain.num_parameters() == sum(3 * c + 1 for c in (4, 8, 8, 4))
    added = set(weighted.state_dict()) - set(plain.state_dict())
    assert all("excitation" in name for name in added)
    assert set(plain.state_dict()) < set(weighted.state_dict())


@pytest.mark.parametrize("blocks", [(1, 2, 3), (1, 0)])
def test_blocks_that_do_not_fit_the_stages_are_refused(blocks):
    with pytest.raises(UsageError, match="blocks_per_stage"):
        ResidualUNet(1, 3, features=(4, 8), blocks_per_stage=blocks, **topology(2, 2))

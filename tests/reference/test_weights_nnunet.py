"""A network of segkit in nnU-Net's own hands (2.8.1), where it is installed: loaded strictly, the same logits.

The way back, nnU-Net's files in segkit, is in tests/weights: the files are kept, nnU-Net is not needed for them. `make
test-reference` runs this.
"""

import pytest
import torch
from tests.contracts.test_every_config import plan as tiny_plan

from segkit.configuration import build_network, compose
from segkit.weights.adaptation import turn_axes
from segkit.weights.nnunet import axes_of
from segkit.weights.nnunet_export import write_model_folder

predicting = pytest.importorskip("nnunetv2.inference.predict_from_raw_data", reason="nnU-Net is not installed")

KINDS = [("unet", 2), ("unet", 3), ("residual_unet", 2), ("residual_unet", 3)]


def exported(tmp_path, kind, dimensions):
    plan = tiny_plan(dimensions)
    network = build_network(compose("train", [f"network={kind}"]), plan)
    with torch.no_grad():
        for parameter in network.parameters():  # a residual block begins as its shortcut: every number shall count
            parameter.add_(0.1 * torch.randn_like(parameter))
    write_model_folder(tmp_path / "model", network, plan)
    return network.eval(), plan


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "dimensions"), KINDS)
def test_nnunets_predictor_loads_the_folder_and_gives_the_same_logits(tmp_path, kind, dimensions):
    network, plan = exported(tmp_path, kind, dimensions)
    theirs = predicting.nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    theirs.initialize_from_trained_model_folder(str(tmp_path / "model"), (0,), "checkpoint_final.pth")
    theirs.network.load_state_dict(theirs.list_of_parameters[0])
    axes = axes_of(dimensions, (0, 1, 2))
    image = torch.randn(1, plan.in_channels, *(16, 12, 20)[:dimensions])
    with torch.no_grad():
        found = theirs.network.eval()(turn_axes(image, axes))
        expected = turn_axes(network(image), axes)
    assert float((found - expected).abs().max()) < 1e-5
    assert theirs.label_manager.num_segmentation_heads == plan.num_classes
    assert theirs.configuration_manager.patch_size == list(plan.patch_size)[::-1]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "dimensions"), KINDS)
def test_nnunet_fine_tunes_from_the_file(tmp_path, kind, dimensions):
    """`-pretrained_weights` asserts that every tensor but the heads is there in the same shape."""
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    from segkit.weights.nnunet_export import plans_json

    network, plan = exported(tmp_path, kind, dimensions)
    (configuration,) = plans_json(network, plan)["configurations"].values()
    facts = configuration["architecture"]
    theirs = get_network_from_plans(
        facts["network_class_name"], facts["arch_kwargs"], facts["_kw_requires_import"], plan.in_channels, 5
    )
    load_pretrained_weights(theirs, str(tmp_path / "model/fold_0/checkpoint_final.pth"))
    name = next(name for name in theirs.state_dict() if name.startswith("encoder") and name.endswith("conv.weight"))
    back = axes_of(dimensions, (0, 1, 2))
    assert torch.equal(turn_axes(theirs.state_dict()[name], back), network.state_dict()[name])

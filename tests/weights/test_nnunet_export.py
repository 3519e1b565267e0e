"""What nnU-Net is given back: its own file, read and written again, is the same; its plans fit its planner's form."""

import json
from dataclasses import replace

import pytest
import torch
from tests.contracts.test_every_config import plan as tiny_plan
from tests.weights.kinds import CHANNELS, CLASSES, FOLDER, NAMES, network_of

from segkit.configuration import build_network, compose
from segkit.errors import UsageError
from segkit.runs.tensors import load_plain
from segkit.weights.files import read_weights
from segkit.weights.nnunet import NAMED
from segkit.weights.nnunet_export import dataset_json, network_weights, plans_json, write_model_folder
from segkit.weights.transfer import transfer


def loaded(name, **changes):
    source = read_weights(FOLDER / f"{name}.pth")
    network = network_of(source, **changes)
    patch = (16,) * (2 if name.endswith("2d") else 3)
    found = transfer(network, source, channels=CHANNELS, classes=CLASSES, patch_size=patch)
    network.load_state_dict(found.state)
    return network, source


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_nnunet_read_and_written_again_is_the_same_to_the_bit(name):
    """Under all names: nnU-Net loads strictly, the second names of its modules included."""
    theirs = load_plain(FOLDER / f"{name}.pth", named=NAMED)["network_weights"]
    network, source = loaded(name, supervised_levels=None)
    written = network_weights(network, source.axes)
    assert set(written) == set(theirs)
    for key, tensor in theirs.items():
        assert torch.equal(written[key], tensor), key


def test_heads_that_are_not_built_are_zeros():
    theirs = load_plain(FOLDER / "plain_3d.pth", named=NAMED)["network_weights"]
    network, source = loaded("plain_3d")
    written = network_weights(network, source.axes)
    assert {key: tensor.shape for key, tensor in written.items()} == {
        key: tensor.shape for key, tensor in theirs.items()
    }
    assert float(written["decoder.seg_layers.0.weight"].abs().max()) == 0
    assert torch.equal(written["decoder.seg_layers.1.weight"], theirs["decoder.seg_layers.1.weight"])


@pytest.mark.parametrize(("kind", "dimensions"), [("unet", 2), ("unet", 3), ("residual_unet", 2), ("residual_unet", 3)])
def test_a_folder_that_is_written_reads_back_as_the_same_network(tmp_path, kind, dimensions):
    plan = tiny_plan(dimensions)
    config = compose("train", [f"network={kind}"])
    network = build_network(config, plan)
    write_model_folder(tmp_path / "model", network, plan)
    source = read_weights(tmp_path / "model/fold_0/checkpoint_final.pth")
    assert (source.channels, source.classes) == (plan.channels, plan.labels.names)
    again = network_of(source, channels=plan.in_channels, classes=plan.num_classes, supervised_levels=None)
    found = transfer(again, source, channels=plan.channels, classes=plan.labels.names, patch_size=plan.patch_size)
    assert {row.fate for row in found.rows} == {"loaded"}
    assert all(torch.equal(tensor, found.state[name]) for name, tensor in network.state_dict().items())
    assert set(json.loads((tmp_path / "model/dataset.json").read_text())["labels"]) == set(plan.labels.names)


def test_plans_are_in_the_order_of_nnunets_axes():
    """segkit's (x, y, z) are nnU-Net's (z, y, x): sizes, spacings, strides and kernels turn round."""
    network, source = loaded("plain_3d")
    plan = tiny_plan(3)
    there = plans_json(network, plan)["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    theirs = load_plain(FOLDER / "plain_3d.pth", named=NAMED)["init_args"]["plans"]["configurations"]["3d_fullres"]
    assert source.axes == (2, 1, 0)
    assert there == theirs["architecture"]["arch_kwargs"]


def test_a_network_that_nnunet_has_not_is_refused():
    config = compose("train", ["network=attention_unet"])
    with pytest.raises(UsageError, match="attention gates"):
        network_weights(build_network(config, tiny_plan(2)), None)
    config = compose("train", ["network=unet", "network.squeeze_excitation=true"])
    with pytest.raises(UsageError, match="with squeeze-excitation"):
        network_weights(build_network(config, tiny_plan(2)), None)
    with pytest.raises(UsageError, match="Conv2d"):
        network_weights(torch.nn.Conv2d(1, 2, 1), None)


def test_the_first_class_is_called_as_nnunet_asks():
    """Its own loader refuses labels without `background`."""
    plan = tiny_plan(2)
    names = ("Background", *plan.labels.names[1:-1], "background")
    written = dataset_json(replace(plan, labels=replace(plan.labels, names=names)))["labels"]
    assert list(written) == ["background", *names[1:-1], "background class"]
    assert list(written.values()) == list(range(len(names)))

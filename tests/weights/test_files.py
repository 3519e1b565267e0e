"""Every layout of a file of weights; and files that lie or would execute something."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.reliability.evil_files import PICKLES, WEIGHTS
from tests.weights.kinds import FOLDER

from segkit.errors import DataError, SegkitError, UsageError
from segkit.runs.tensors import load_plain
from segkit.weights.files import read_weights
from segkit.weights.nnunet import NAMED


class Numpys:
    """Pickled under the names that nnU-Net's checkpoints may hold, with contents that they never have."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __reduce__(self):
        return np.dtype, self.arguments


@pytest.mark.parametrize("kind", PICKLES)
def test_a_hostile_file_is_refused_and_executes_nothing(tmp_path, kind):
    path, canary = tmp_path / "weights.pth", tmp_path / "canary"
    PICKLES[kind](path, canary)
    with pytest.raises(DataError, match="cannot be read"):
        read_weights(path)
    assert not canary.exists()
    assert not (tmp_path.parent / "canary").exists()


@pytest.mark.parametrize("kind", [kind for kind in WEIGHTS if kind != "other tensors"])
def test_hostile_safetensors_are_refused(tmp_path, kind):
    path, canary = tmp_path / "weights.safetensors", tmp_path / "canary"
    WEIGHTS[kind](path, canary)
    with pytest.raises(DataError, match="cannot be read"):
        read_weights(path)
    assert not canary.exists()


def test_a_checkpoint_of_nnunet_with_one_name_more_is_refused(tmp_path):
    """As nnU-Net writes it, but for one thing that would run; among the names of numpy only three are let in."""
    canary = tmp_path / "canary"
    for evil in (pickle.PickleBuffer, np.ndarray, print):
        path = tmp_path / "checkpoint_final.pth"
        torch.save({"network_weights": {"a": torch.zeros(1)}, "logging": [evil, str(canary)]}, path)
        with pytest.raises(DataError, match="nothing of it was executed"):
            read_weights(path)


def test_numbers_of_numpy_are_not_made_whatever_stands_in_their_place(tmp_path):
    """A type of two gigabytes, and a number of it, would be memory; in the place of both nothing is made."""
    path = tmp_path / "checkpoint_final.pth"
    content = {"network_weights": {"a": torch.ones(2)}, "logging": [np.float64(3), np.float32(2), np.int64(1)]}
    content["logging"].append(Numpys("V2000000000"))
    torch.save(content, path)
    assert read_weights(path).tensors["a"].tolist() == [1, 1]
    made = load_plain(path, named=NAMED)["logging"]
    assert {type(each).__name__ for each in made} == {"_Unread"}


def test_weights_that_are_not_finite_are_refused(tmp_path):
    save_file({"a": torch.ones(3), "b": torch.tensor([1.0, float("nan")])}, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match="b holds NaN"):
        read_weights(tmp_path / "a.safetensors")


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", None])
def test_a_dictionary_of_tensors_alone_or_under_a_usual_key(tmp_path, key):
    tensors = {"encoder.a": torch.ones(2), "encoder.b": torch.zeros(1)}
    torch.save({key: tensors, "epoch": 3} if key else tensors, tmp_path / "a.pt")
    source = read_weights(tmp_path / "a.pt")
    assert set(source.tensors) == set(tensors)
    assert (source.layout, source.channels, source.classes, source.axes) == ("plain", None, None, None)


def test_a_self_supervised_checkpoint_for_nnunet(tmp_path):
    """The layout of the OpenMind checkpoints: `network_weights`, each convolution twice, and an adaptation plan."""
    kernel = torch.randn(4, 1, 3, 3, 3)
    names = ("encoder.stem.convs.0.conv.weight", "encoder.stem.convs.0.all_modules.0.weight")
    weights = {name: kernel for name in names} | {f"decoder.{name}": kernel for name in names}
    plan = {
        "architecture_plans": {"arch_class_name": "ResEncL", "arch_kwargs": None},
        "pretrain_plan": {"configurations": {"onemmiso": {"patch_size": [160, 160, 160]}}},
        "key_to_encoder": "encoder.stages",
        "key_to_stem": "encoder.stem",
        "keys_to_in_proj": ["encoder.stem.convs.0.conv", "encoder.stem.convs.0.all_modules.0"],
        "pretrain_num_input_channels": 1,
    }
    torch.save({"network_weights": weights, "nnssl_adaptation_plan": plan, "citations": []}, tmp_path / "a.pth")
    source = read_weights(tmp_path / "a.pth")
    assert list(source.tensors) == ["encoder.stem.convs.0.conv.weight"]
    assert source.told == "a self-supervised checkpoint for nnU-Net (ResEncL)"
    assert (source.layout, source.axes, source.channels) == ("nnunet", (2, 1, 0), None)


@pytest.mark.parametrize(
    "changed",
    [
        {"plans": {"transpose_forward": [0, 0, 1]}},
        {"plans": []},
        {"dataset_json": {"labels": {"a": "one"}}},
        {"dataset_json": {"channel_names": {"first": "T1"}}},
    ],
)
def test_what_nnunet_does_not_write_is_refused(tmp_path, changed):
    content = load_plain(FOLDER / "plain_3d.pth", named=NAMED)
    begun = {**content["init_args"], **changed}
    if changed == {"plans": []}:
        begun["plans"] = [1]
    torch.save({"network_weights": dict(content["network_weights"]), "init_args": begun}, tmp_path / "a.pth")
    with pytest.raises(DataError, match="but not their contents"):
        read_weights(tmp_path / "a.pth")


def test_regions_are_no_classes(tmp_path):
    content = load_plain(FOLDER / "plain_2d.pth", named=NAMED)
    begun = {**content["init_args"], "dataset_json": {"labels": {"background": 0, "whole": [1, 2], "core": [2]}}}
    torch.save({"network_weights": dict(content["network_weights"]), "init_args": begun}, tmp_path / "a.pth")
    assert read_weights(tmp_path / "a.pth").classes == ()


def test_what_is_not_there_or_holds_no_weights(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        read_weights(tmp_path / "nothing.pth")
    with pytest.raises(UsageError, match="neither a run"):
        read_weights(tmp_path)
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(SegkitError, match="holds no weights"):
        read_weights(tmp_path / "empty.pth")

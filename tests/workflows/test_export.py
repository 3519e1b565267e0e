"""`segkit export`: the selected weights as nnU-Net names them, whole or not at all."""

import errno
import json
import os
import subprocess
from dataclasses import replace

import pytest
import torch

from segkit.configuration import build_network, compose
from segkit.configuration.entry import main
from segkit.planning.plan import Plan
from segkit.runs.checkpoints import write_checkpoint
from segkit.runs.directory import RunDirectory
from segkit.runs.index import refresh
from segkit.runs.leftovers import place
from segkit.runs.manifest import Entry, checkpoint_path
from segkit.weights import nnunet_export
from segkit.weights.files import read_weights
from segkit.workflows.export import notes
from segkit.workflows.loading import load


@pytest.fixture
def unet_run(threshold_run, nnunet_raw):
    """Factory: the folder of a run with a random network of this configuration, and its weights."""

    def make(network="unet", **data):
        directory = RunDirectory(threshold_run(nnunet_raw(cases=6, **data), 1.0))
        config = directory.load_config() | {"network": compose("train", [f"network={network}"])["network"]}
        directory.save_config(config)
        made = build_network(config, Plan.from_json(json.loads(directory.plan.read_text())))
        model = {f"network.{key}": tensor for key, tensor in made.state_dict().items()}
        entry = Entry(step=3, n=3, epoch=3, validated_n=3, score=0.9, per_case={"a": 0.9, "b": 0.9})
        write_checkpoint(checkpoint_path(directory.checkpoints, 3), entry, model=model, optimizer={}, state={})
        refresh(directory.checkpoints)
        return directory.path, made.state_dict()

    return make


def export(*words):
    return main("export", [str(word) for word in words])


@pytest.mark.parametrize("network", ["unet", "residual_unet"])
def test_the_selected_weights_and_what_to_do_with_them(unet_run, tmp_path, capsys, network):
    path, state = unet_run(network)
    output = tmp_path / "deep" / "model"
    assert export(f"run={path}", f"output={output}") == 0
    assert sorted(str(file.relative_to(output)) for file in output.rglob("*") if file.is_file()) == [
        "dataset.json",
        "fold_0/checkpoint_final.pth",
        "plans.json",
    ]
    source = read_weights(output / "fold_0" / "checkpoint_final.pth")
    names = [name for name in state if name.startswith("encoder") and state[name].ndim == 5]
    assert names
    for name in names:
        assert torch.equal(source.tensors[name], state[name].permute(0, 1, 4, 3, 2))
    told = capsys.readouterr().out
    assert str(output) in told
    assert "_0000.nii.gz channel0; files of another kind are to be converted first" in told
    assert f"nnUNetv2_predict_from_modelfolder -i IMAGES -o MASKS -m {output} -f 0 --disable_tta" in told


def test_classes_with_other_ids_are_told(unet_run, tmp_path, capsys):
    path, _ = unet_run()
    record = json.loads((path / "plan.json").read_text())
    record["labels"]["ids"] = [0, 7, 9]
    (path / "plan.json").write_text(json.dumps(record))
    assert export(f"run={path}", f"output={tmp_path / 'model'}") == 0
    first, second = record["labels"]["names"][1:]
    numbered = f"0 background (was 0 background), 1 {first} (was 7 {first}), 2 {second} (was 9 {second})"
    assert f"as nnU-Net numbers and calls them: {numbered}" in capsys.readouterr().out


def test_a_folder_that_is_there_stays_as_it_was(unet_run, tmp_path, capsys):
    path, _ = unet_run()
    (tmp_path / "model").mkdir()
    assert export(f"run={path}", f"output={tmp_path / 'model'}") == 2
    assert "is there already" in capsys.readouterr().err
    assert list((tmp_path / "model").iterdir()) == []


def test_a_network_that_nnunet_has_not_leaves_nothing(unet_run, tmp_path, capsys):
    path, _ = unet_run("attention_unet")
    assert export(f"run={path}", f"output={tmp_path / 'out' / 'model'}") == 2
    assert "network=residual_unet" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing(unet_run, tmp_path, capsys, monkeypatch):
    path, _ = unet_run()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(nnunet_export, "sync_file", full)
    assert export(f"run={path}", f"output={tmp_path / 'out' / 'model'}") == 74
    assert "No space left" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_what_nnunet_does_otherwise_is_told(unet_run, tmp_path, capsys):
    path, _ = unet_run()
    (path / "postprocessing.json").write_text("{}")
    trained, output = load(path, accelerator="cpu"), tmp_path / "a model"
    labels = replace(trained.plan.labels, kind="instances")
    coloured = replace(trained.plan, channels=("red", "green", "blue"), labels=labels)
    assert notes(replace(trained, plan=coloured), output) == [
        "images    _0000.nii.gz in colours; files of another kind are to be converted first",
        "masks     0 and 1 there: nnU-Net does not number objects",
        f"masks     without the rules of {path / 'postprocessing.json'}, which segkit applies after the network",
        f"predict   nnUNetv2_predict_from_modelfolder -i IMAGES -o MASKS -m '{output}' -f 0 --disable_tta",
    ]


def test_a_link_to_nothing_is_in_the_way(unet_run, tmp_path, capsys):
    path, _ = unet_run()
    (tmp_path / "model").symlink_to(tmp_path / "gone")
    assert export(f"run={path}", f"output={tmp_path / 'model'}") == 2
    assert "is there already" in capsys.readouterr().err


def test_what_a_killed_export_left_goes_with_the_next(unet_run, tmp_path, capsys):
    path, _ = unet_run()
    dead = subprocess.Popen(["true"])
    dead.wait()
    left, others = (tmp_path / f".{name}.{place()}-{dead.pid}-0.tmp" for name in ("model", "another"))
    for folder in (left, others):
        (folder / "fold_0").mkdir(parents=True)
    assert export(f"run={path}", f"output={tmp_path / 'model'}") == 0
    assert not left.exists()
    assert others.exists()

import json
import shutil
import subprocess
import sys

import pytest
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from segkit.configuration import compose, composition, config_dir
from segkit.configuration import tree as tree_module
from segkit.errors import UsageError


def test_the_result_is_plain_and_resolved():
    config = compose("train", ["paths.runs=/tmp/runs"])
    assert json.loads(json.dumps(config)) == config
    assert config["paths"] == {"runs": "/tmp/runs", "cache": "/tmp/runs/.prepared", "mlflow": "/tmp/runs/mlflow.db"}
    assert "hydra" not in config


def test_it_works_twice_and_leaves_no_hydra_behind():
    assert compose("train", ["seed=3"]) == compose("train", ["seed=3"])
    assert not GlobalHydra.instance().is_initialized()


def test_what_a_caller_does_to_the_result_is_his_own():
    first = compose("train", ["debug=fast"])
    expected = json.dumps(first)
    first["plan"]["name"], first["loss"] = "changed", None
    assert json.dumps(compose("train", ["debug=fast"])) == expected


def test_a_file_that_has_changed_is_read_again(tmp_path, monkeypatch):
    tree = tmp_path / "configs"
    shutil.copytree(config_dir(), tree)
    for module in (composition, tree_module):
        monkeypatch.setattr(module, "config_dir", lambda: tree)
    assert compose("train")["seed"] == 0
    file = tree / "train.yaml"
    text = file.read_text()
    assert text.count("\nseed: 0") == 1
    file.write_text(text.replace("\nseed: 0", "\nseed: 12"))
    assert compose("train")["seed"] == 12


def test_a_hydra_that_is_running_goes_on(tmp_path):
    (tmp_path / "theirs.yaml").write_text("a: 1\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert compose("train")["seed"] == 0
        assert hydra_compose("theirs").a == 1


def test_an_experiment_sets_groups_and_keys_and_gives_way_to_the_user():
    config = compose("train", ["experiment=nnunet"])
    assert config["experiment"] == "nnunet"
    assert config["plan"]["name"] == "nnunet"
    assert config["optimizer"]["_target_"] == "torch.optim.SGD"
    assert config["optimizer"]["momentum"] == 0.99
    assert config["optimizer"]["weight_decay"] == 3e-5
    assert config["scheduler"]["exponent"] == 0.9
    assert config["data"]["split"]["tuning"] == 0
    assert (config["trainer"]["max_epochs"], config["trainer"]["steps_per_epoch"]) == (1000, 250)
    typed = compose("train", ["trainer.max_epochs=2", "experiment=nnunet", "optimizer=adamw"])
    assert typed["trainer"]["max_epochs"] == 2
    assert typed["optimizer"]["_target_"] == "torch.optim.AdamW"


def test_whole_numbers_become_floats_where_floats_are_meant():
    config = compose("train", ["optimizer.weight_decay=0", "optimizer.betas=[0,0.9]", "trainer.max_epochs=1"])
    assert str(config["optimizer"]["weight_decay"]) == "0.0"
    assert str(config["optimizer"]["betas"]) == "[0.0, 0.9]"
    assert str(config["trainer"]["max_epochs"]) == "1"


def test_named_plans_differ_from_auto_by_their_name_alone():
    auto, tiny = compose("train")["plan"], compose("train", ["plan=tiny"])["plan"]
    assert tiny == {**auto, "name": "tiny"}


def test_home_is_written_out_in_paths_only(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    config = compose("train", ["data.root=~/images", "data.name=~"])
    assert config["data"]["root"] == "/home/me/images"
    assert config["data"]["name"] == "~"
    assert compose("predict", ["run=[~/a,b]", "input=x", "output=y"])["run"] == ["/home/me/a", "b"]


def test_files_of_the_user_are_choices_too(tmp_path):
    (tmp_path / "loss").mkdir()
    (tmp_path / "experiment").mkdir()
    (tmp_path / "loss" / "mine.yaml").write_text("_target_: my.Loss\nalpha: 1  # float > 0. Weight.\nbeta: 2\n")
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /loss: mine\nexperiment: mine\ntrainer:\n  max_epochs: 7\n"
    )
    config = compose("train", ["experiment=mine", "loss.beta=x"], config_dirs=[tmp_path])
    assert config["loss"] == {"_target_": "my.Loss", "alpha": 1, "beta": "x"}
    assert config["trainer"]["max_epochs"] == 7
    with pytest.raises(UsageError, match="expected float > 0"):
        compose("train", ["loss=mine", "loss.alpha=-1"], config_dirs=[tmp_path])


def test_mistakes_in_a_file_of_the_user_are_found_too(tmp_path):
    (tmp_path / "experiment").mkdir()
    path = tmp_path / "experiment" / "mine.yaml"
    path.write_text("# @package _global_\ntrainer:\n  max_epoch: 7\n  devices: two\n")
    with pytest.raises(UsageError) as caught:
        compose("train", ["experiment=mine", "sed=1"], config_dirs=[tmp_path])
    text = str(caught.value)
    assert f"trainer.max_epoch in {path}:3: unknown key trainer.max_epoch. Did you mean trainer.max_epochs?" in text
    assert "trainer.devices=two: 'two' does not fit" in text
    assert "sed=1" in text
    path.write_text("# @package _global_\ndefaults:\n  - override /nothing: x\n")
    read = "its files cannot be composed"
    with pytest.raises(UsageError, match=read):
        compose("train", ["experiment=mine"], config_dirs=[tmp_path])


def test_another_file_at_the_top(tmp_path):
    (tmp_path / "mytrain.yaml").write_text("defaults:\n  - train\n  - _self_\nseed: 9\n")
    assert compose("train", config_dirs=[tmp_path], config_name="mytrain")["seed"] == 9
    with pytest.raises(UsageError, match=r"no configuration file nothere\.yaml"):
        compose("train", config_name="nothere")


@pytest.mark.parametrize("layout", ["checkout", "wheel"])
def test_from_any_folder_in_checkout_and_wheel(layout, tmp_path):
    """As installed: the package alone in a folder, with configs inside it or two levels above."""
    root = tmp_path / "root"
    site = root / "src" if layout == "checkout" else root
    site.mkdir(parents=True)
    source = config_dir().parent / "src" / "segkit"
    (site / "segkit").symlink_to(source) if layout == "checkout" else _copy(source, site / "segkit")
    if layout == "wheel":
        _copy(config_dir(), site / "segkit" / "configs")
    empty = tmp_path / "empty"
    empty.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "segkit.train", "--cfg", "job", "seed=4"],
        capture_output=True,
        text=True,
        cwd=empty,
        env={"PYTHONPATH": str(site), "PATH": "/usr/bin"},
        check=False,
    )
    assert done.stderr == ""
    assert yaml.safe_load(done.stdout)["seed"] == 4
    assert not list(empty.iterdir())


def _copy(source, target):
    for path in source.rglob("*"):
        if path.is_file() and path.suffix in (".py", ".yaml"):
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())

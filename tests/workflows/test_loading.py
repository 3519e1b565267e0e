import logging

import pytest
import yaml

from segkit.errors import StorageError, UsageError
from segkit.workflows.loading import choose_checkpoint, load


@pytest.fixture
def path(nnunet_raw, threshold_run):
    return threshold_run(nnunet_raw(cases=6, num_classes=2), 1.3)


def test_what_a_run_says_and_what_the_caller_says_instead(path):
    plain = load(path, accelerator="cpu")
    assert plain.predictor.mirror_axes == ()
    assert plain.predictor.step == plain.settings.step == 0.5
    assert plain.predictor.tile_batch == plain.plan.tile_batch
    assert plain.predictor.precision == "32-true"
    assert not plain.predictor.network.training
    other = load(path, accelerator="cpu", mirror=True, step=0.25, tile_batch=7, precision="bf16-mixed")
    assert other.predictor.mirror_axes == other.plan.flip_axes != ()
    assert (other.predictor.step, other.predictor.tile_batch, other.predictor.precision) == (0.25, 7, "bf16-mixed")


def test_fp16_is_not_emulated_on_a_cpu(path, caplog):
    with caplog.at_level(logging.WARNING):
        assert load(path, accelerator="cpu", precision="16-mixed").predictor.precision == "32-true"
    assert "16-mixed" in caplog.text


@pytest.mark.parametrize(
    ("checkpoint", "step"), [("selected", 2), ("best", 2), ("last", 2), ("step-00000001", 1), ("path", 1)]
)
def test_checkpoint_by_rule_name_or_path(path, checkpoint, step):
    given = str(path / "checkpoints" / "step-00000001") if checkpoint == "path" else checkpoint
    assert load(path, accelerator="cpu", checkpoint=given).selection.entry.step == step


def test_a_checkpoint_of_another_run_is_refused(path, tmp_path):
    run = load(path, accelerator="cpu").directory
    with pytest.raises(UsageError, match="no checkpoint of this run"):
        choose_checkpoint(run, str(tmp_path / "elsewhere" / "step-00000001"), rule="best")


def test_a_class_of_somebody_elses_is_not_built_unless_trusted(path):
    config = yaml.safe_load((path / "config.yaml").read_text())
    config["network"]["_target_"] = "subprocess.Popen"
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UsageError, match="trust"):
        load(path, accelerator="cpu")


def test_damage_is_named(path):
    weights = path / "checkpoints" / "step-00000002" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(StorageError, match=r"model\.safetensors"):
        load(path, accelerator="cpu")
    (path / "plan.json").unlink()
    with pytest.raises(StorageError, match=r"plan\.json"):
        load(path, accelerator="cpu")


def test_weights_of_another_network(path):
    config = yaml.safe_load((path / "config.yaml").read_text())
    config["network"]["kernel_size"] = 3
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(StorageError, match="do not fit"):
        load(path, accelerator="cpu")


def test_no_such_run(tmp_path):
    with pytest.raises(UsageError, match="no run"):
        load(tmp_path / "nothing")

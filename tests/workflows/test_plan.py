"""What `plan` prints and writes."""

import json
import re

from segkit.networks.unet import UNet
from segkit.planning.plan import Plan
from segkit.workflows import plan as workflow


def config(root, cache, output=None):
    return {
        "data": {
            "root": str(root),
            "name": None,
            "layout": "auto",
            "labels": "auto",
            "groups": None,
            "ignore_label": None,
            "laterality": "auto",
            "max_cases": None,
            "split": {"folds": 5, "fold": 0, "tuning": 0.15, "seed": 12345, "file": None},
        },
        "plan": {"name": "tiny"},
        "network": {"_target_": "segkit.networks.unet.UNet"},
        "loss": {"_target_": "segkit.losses.cross_entropy.CrossEntropyLoss"},
        "optimizer": {"_target_": "torch.optim.SGD", "lr": None},
        "trainer": {"accelerator": "cpu"},
        "paths": {"cache": str(cache)},
        "output": output,
    }


def test_plan_is_shown_with_reasons_and_written(nnunet_raw, tmp_path, capsys):
    output = tmp_path / "folder" / "plan.json"
    plan = workflow.run(config(nnunet_raw(), tmp_path / "cache", str(output)))
    printed = capsys.readouterr().out
    assert "patch_size" in printed
    assert "because: asked for" in printed
    assert str(output) in printed
    network = UNet(
        1,
        plan.num_classes,
        features=plan.features,
        strides=plan.strides,
        kernel_sizes=plan.kernel_sizes,
        dimensions=plan.dimensions,
    )
    assert f"network: UNet, {network.num_parameters() / 1e6:.2f} M parameters; " in printed
    assert "activations a patch; " in printed
    assert re.search(r"memory: \d+ MB for training", printed)
    assert Plan.from_json(json.loads(output.read_text())) == plan


def test_plan_writes_nothing_unasked(nnunet_raw, tmp_path):
    root = nnunet_raw()
    before = sorted(root.rglob("*"))
    workflow.run(config(root, tmp_path / "cache"))
    assert sorted(root.rglob("*")) == before

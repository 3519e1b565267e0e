import fractions

import pytest
import torch
from torch import nn

from segkit.configuration.instantiate import instantiate, locate, make_factory
from segkit.errors import UsageError


def build(node, **keywords):
    return instantiate(node, where="thing", trust=True, **keywords)


def test_arguments_nested_objects_and_tuples():
    made = build(
        {"_target_": "builtins.dict", "a": [1, [2]], "args": {"b": {"_target_": "fractions.Fraction", "args": {}}}}
    )
    assert made == {"a": (1, (2,)), "b": fractions.Fraction()}


def test_what_is_supplied_fills_gaps_only():
    node = {"_target_": "torch.nn.Linear", "out_features": 3, "in_features": None}
    made = build(node, supplied={"in_features": 2, "out_features": 7, "unknown": 1})
    assert (made.in_features, made.out_features) == (2, 3)


def test_supplied_values_reach_inner_objects():
    node = {"_target_": "builtins.dict", "inner": {"_target_": "torch.nn.Linear", "out_features": 3}}
    assert build(node, supplied={"in_features": 5})["inner"].in_features == 5


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": "torch.nn.Linear", "in_features": 1, "out_feature": 1}, "did you mean out_features?"),
        ({"_target_": "torch.nn.Linear", "in_features": 1}, "needs the argument out_features"),
        ({"_target_": "torch.nn.Linaer"}, r"did you mean torch.nn.Linear?"),
        ({"_target_": "no.such.Module"}, "there is no module 'no.such'"),
        ({"_target_": "Module"}, "cannot be imported"),
        ({"_target_": "math.pi"}, "not called"),
        (
            {
                "_target_": "torch.nn.Conv1d",
                "args": {"in_channels": 3, "out_channels": 2, "kernel_size": 1, "groups": 2},
            },
            "divisible",
        ),
    ],
)
def test_what_cannot_be_built_is_said_with_its_key(node, message):
    with pytest.raises(UsageError) as caught:
        build(node)
    assert message in str(caught.value)
    assert "thing" in caught.value.where


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "their.Network",
        "torch.load",
        "torch.hub.load",
        "torch.serialization.load",
        "torch.os.system",
        "monai.bundle.run",
        "segkit.errors.os.system",
        "segkit.configuration.instantiate.importlib.import_module",
        "segkit.configuration.instantiate.locate",
        "segkit.runs.directory.RunDirectory",
        "",
    ],
)
def test_a_run_folder_cannot_name_other_code(target):
    with pytest.raises(UsageError):
        locate(target, where="network", trust=False)


@pytest.mark.parametrize(
    "target",
    [
        "torch.nn.Conv3d",
        "torch.optim.SGD",
        "segkit.networks.unet.UNet",
        "segkit.losses.dice.DiceLoss",
        "segkit.module.schedules.poly",
        "segkit.augmentation.recipe.Recipe",
    ],
)
def test_a_run_folder_may_name_ours_and_torchs(target):
    assert locate(target, where="network", trust=False).__name__ == target.rpartition(".")[2]


def test_inner_objects_are_not_trusted_either():
    node = {"_target_": "torch.nn.Sequential", "args": {"inner": {"_target_": "os.getcwd"}}}
    with pytest.raises(UsageError, match=r"os\.getcwd is not built from a run folder"):
        instantiate(node, where="network")


def test_a_factory_leaves_out_what_its_target_does_not_take():
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    node = {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 2}
    make = make_factory(node, where="scheduler", later=("optimizer", "total_steps"))
    assert make(optimizer, total_steps=10).step_size == 2
    with pytest.raises(UsageError, match="step_size"):
        make_factory({"_target_": node["_target_"]}, where="scheduler", later=("optimizer", "total_steps"))

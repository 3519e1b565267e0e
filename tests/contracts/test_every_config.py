"""Every YAML file: it composes, its keys are explained, its classes take its arguments, and no key is dead.

A new file is tested by being there.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import segkit
from segkit.configuration import (
    build_loss,
    build_network,
    build_optimizer,
    build_recipe,
    build_scheduler,
    compose,
    config_dir,
)
from segkit.configuration.tree import Tree, read_config_file
from segkit.configuration.value_types import parse_comment
from segkit.errors import UsageError
from segkit.planning.plan import Normalisation, Plan
from segkit.types import Labels

TREE = Tree((config_dir(),))
FILES = sorted(path.relative_to(config_dir()).with_suffix("").as_posix() for path in config_dir().rglob("*.yaml"))
CHOICES = [(group, name) for group in TREE.groups() for name in TREE.names(group)]
NEEDED = {
    "evaluate": ["run=r"],
    "calibrate": ["run=r"],
    "compare": ["reference=r", "candidate=c"],
    "report": ["run=r"],
    "predict": ["run=r", "input=i", "output=o"],
    "export": ["run=r", "output=o"],
}
CUSTOM = {
    "network": "torch.nn.Conv3d",
    "loss": "segkit.losses.dice.DiceLoss",
    "optimizer": "torch.optim.SGD",
    "scheduler": "segkit.module.schedules.poly",
}


def plan(dimensions: int) -> Plan:
    """As small as the networks take."""
    return Plan(
        name="tiny",
        dimensions=dimensions,
        channels=("MRI",),
        labels=Labels(("background", "a", "b"), (0, 1, 2)),
        spacing=(1.0,) * dimensions,
        unit="mm",
        normalisation=(Normalisation("zscore"),),
        patch_size=(16,) * dimensions,
        batch_size=2,
        features=(4, 8, 8),
        strides=((1,) * dimensions, *((2,) * dimensions,) * 2),
        kernel_sizes=((3,) * dimensions,) * 3,
        blocks_per_stage=(1, 1, 1),
        batch_dice=False,
        steps_per_epoch=2,
        max_epochs=1,
        learning_rate=1e-3,
        validation_every_n_epochs=1,
        precision="32-true",
        tile_batch=1,
        flip_axes=tuple(range(dimensions)),
    )


def train(group: str, choice: str) -> dict[str, Any]:
    words = [f"{group}={choice}"]
    if choice == "custom":
        words.append(f"{group}._target_={CUSTOM[group]}")
        words += [f"{group}.args.kernel_size=3", f"{group}.args.out_channels=3"] if group == "network" else []
    if (group, choice) == ("loss", "sum"):
        words += ["loss@loss.terms.a=dice", "loss@loss.terms.b=focal", "loss.weights={a: 1, b: 1}"]
    return compose("train", words)


@pytest.mark.parametrize("verb", segkit.VERBS)
def test_every_verb_composes_and_its_defaults_are_of_their_types(verb: str) -> None:
    assert compose(verb, NEEDED.get(verb, []))


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes(group: str, choice: str) -> None:
    assert train(group, choice)


@pytest.mark.parametrize("name", FILES)
def test_every_key_has_type_unit_and_meaning(name: str) -> None:
    """A file that only sets keys of others (an experiment, a named plan) says why instead."""
    file = read_config_file(config_dir() / f"{name}.yaml")
    assert file.header, f"{name}: a comment at the top says what it is"
    for leaf in file.leaves:
        if file.is_global or file.includes:
            assert leaf.text, f"{leaf.where}: {leaf.key} needs a comment that says why"
        elif not leaf.key.endswith("_target_"):
            assert parse_comment(leaf.text), f"{leaf.where}: {leaf.key} needs '# TYPE[, unit]. Meaning.': {leaf.text!r}"
            assert parse_comment(leaf.text).meaning, f"{leaf.where}: {leaf.key} needs a meaning"


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("experiment/")])
def test_every_experiment_promises_command_hardware_time_and_score(name: str) -> None:
    header = read_config_file(config_dir() / f"{name}.yaml").header
    for word in ("Command", "Hardware", "Time", "Score"):
        assert any(line.startswith(word) for line in header.splitlines()), f"{name} lacks the line {word}"
    assert f"experiment={name.partition('/')[2]}" in header


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("choice", [name for name in TREE.names("network") if name != "custom"])
def test_every_network_is_built(choice: str, dimensions: int) -> None:
    assert isinstance(build_network(train("network", choice), plan(dimensions)), torch.nn.Module)


def test_a_custom_network_gets_what_it_names_of_the_plan() -> None:
    assert build_network(train("network", "custom"), plan(3)).in_channels == 1


def test_a_pretrained_encoder_is_read_where_a_run_begins_and_not_where_its_weights_are_restored(tmp_path: Path) -> None:
    config = train("network", "flexible_unet")
    config["network"] |= {"encoder_weights": str(tmp_path / "gone.pth"), "decoder_channels": [4] * 5, "norm": "batch"}
    with pytest.raises(UsageError, match="no such file"):
        build_network(config, plan(2), trust=True)
    with pytest.raises(UsageError, match="from a run folder"):
        build_network(config, plan(2))
    assert isinstance(build_network(config, plan(2), restored=True), torch.nn.Module)


@pytest.mark.parametrize("choice", TREE.names("loss"))
def test_every_loss_is_built(choice: str) -> None:
    assert isinstance(build_loss(train("loss", choice), plan(3)), torch.nn.Module)


@pytest.mark.parametrize("choice", TREE.names("augmentation"))
def test_every_recipe_is_built(choice: str) -> None:
    assert callable(build_recipe(train("augmentation", choice)))


@pytest.mark.parametrize("choice", TREE.names("optimizer"))
def test_every_optimizer_is_built(choice: str) -> None:
    made = build_optimizer(train("optimizer", choice), plan(3))([torch.nn.Parameter(torch.zeros(1))])
    assert made.param_groups[0]["lr"] == 1e-3


@pytest.mark.parametrize("choice", TREE.names("scheduler"))
def test_every_schedule_is_built(choice: str) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = build_scheduler(train("scheduler", choice))(optimizer, total_steps=10)
    assert isinstance(schedule, torch.optim.lr_scheduler.LRScheduler)


@cache
def names_in_code() -> frozenset[str]:
    """Names, attributes, arguments and whole strings of the package, docstrings and `configuration` left out."""
    found: set[str] = set()
    package = Path(segkit.__file__).parent
    for path in package.rglob("*.py"):
        if "configuration" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Constant(value=str(text)):
                    found.add(text)
                case ast.arg(arg=name) | ast.keyword(arg=str(name)) | ast.Attribute(attr=name) | ast.Name(id=name):
                    found.add(name)
    return frozenset(found)


def plain_keys(node: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted keys outside the nodes that name a class: those are held against its signature."""
    for name, value in node.items():
        if isinstance(value, Mapping) and value:
            if "_target_" not in value:
                yield from plain_keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


@pytest.mark.parametrize("verb", segkit.VERBS)
def test_no_key_is_dead(verb: str) -> None:
    """Some code must know the key's name, or another key refer to it; what nobody reads must not be offered."""
    texts = [(config_dir() / f"{name}.yaml").read_text(encoding="utf-8") for name in FILES]
    known = names_in_code() | {key.rpartition(".")[2] for text in texts for key in re.findall(r"\$\{([\w.]+)\}", text)}
    dead = [key for key in plain_keys(compose(verb, NEEDED.get(verb, []))) if key.rpartition(".")[2] not in known]
    assert not dead, f"nothing reads {dead}"

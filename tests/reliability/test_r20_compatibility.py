"""R20: what a run keeps for life is refused with both values and the flag to go on; every other change is applied."""

import json
import shutil
from functools import cache, reduce
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer

from segkit.configuration import compose
from segkit.errors import ExitCode, StorageError, UsageError
from segkit.runs.compatibility import refuse_incompatible
from segkit.runs.files import read_json, write_json
from segkit.runs.index import load_index
from segkit.tracking.journal import read_rows
from segkit.workflows.train import run

FROZEN = [  # key, another value than the first life's
    ("seed", 1),
    ("network.convolutions_per_stage", 3),
    ("network.attention", True),
    ("plan.name", "small"),
    ("plan.spacing", [2.0, 2.0, 2.0]),
    ("plan.patch_size", [20, 20, 20]),
    ("plan.batch_size", 4),
    ("loss.terms.dice.smooth", 1.0),
    ("augmentation.spatial.mirror_probability", 0.0),
    ("optimizer._target_", "torch.optim.SGD"),
    ("optimizer.weight_decay", 0.1),  # a checkpoint brings the old one back
    ("scheduler._target_", "segkit.module.schedules.poly"),
    ("score.weights.f1", 0.5),
    ("data.labels", "semantic"),
    ("data.max_cases", 3),
    ("data.order", "replacement"),
    ("data.split.fold", 1),
    ("data.split.seed", 1),
    ("data.split.tuning", "equal"),
    ("trainer.steps_per_epoch", 4),
    ("trainer.accumulate", 2),
    ("trainer.precision", "bf16-mixed"),
    ("trainer.ema_decay", 0.9),
    ("validation.step", 0.6),
]
FREE = [
    ("optimizer.lr", 5e-4),
    ("early_stopping.patience", 3),
    ("early_stopping.min_delta", 0.1),
    ("trainer.max_epochs", 5),
    ("extra_epochs", 2),
    ("trainer.accelerator", "cpu"),
    ("trainer.devices", 2),
    ("trainer.threads", 2),
    ("trainer.gradient_clip", 1.0),
    ("trainer.log_every_n_steps", 5),
    ("validation.every_n_epochs", 3),
    ("validation.tile_batch", 1),
    ("scheduler.final", 0.1),
    ("data.workers", 2),
    ("data.persistent_workers", False),
    ("data.root", "/another/drive"),
    ("checkpoint.every_s", 60.0),
    ("checkpoint.top_k", 3),
    ("checkpoint.keep", 4),
    ("overlays.cases", 0),
    ("overlays.every_n_epochs", 1),
    ("select", "last"),
    ("tracking.name", "none"),
    ("paths.runs", "/another/folder"),
    ("deterministic", True),
]


@cache
def first_life(*words: str) -> dict[str, Any]:
    """What a first life was begun with."""
    return compose("train", words)


def changed(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The same configuration with another value at a key that it has."""
    word, _, rest = key.partition(".")
    assert word in config, key
    return {**config, word: changed(config[word], rest, value) if rest else value}


def value_at(config: dict[str, Any], key: str) -> Any:
    return reduce(lambda inner, word: inner[word], key.split("."), config)


@pytest.mark.parametrize(("key", "value"), FROZEN, ids=[row[0] for row in FROZEN])
def test_these_are_refused_with_both_values_and_the_way_on(key: str, value: Any) -> None:
    before = first_life()
    with pytest.raises(UsageError, match="another run_name") as refused:
        refuse_incompatible(before, changed(before, key, value), run_name="life")
    assert refused.value.exit_code == ExitCode.USAGE
    assert refused.value.why == f"{key}: {value_at(before, key)!r} -> {value!r}"


@pytest.mark.parametrize("word", ["network=residual_unet", "loss=cross_entropy", "augmentation=none", "optimizer=sgd"])
def test_another_choice_of_a_group_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match=word.partition("=")[0]):
        refuse_incompatible(first_life(), first_life(word), run_name="life")


@pytest.mark.parametrize(("key", "value"), FREE, ids=[row[0] for row in FREE])
def test_these_are_accepted_and_said(key: str, value: Any) -> None:
    before = first_life()
    said = refuse_incompatible(before, changed(before, key, value), run_name="life")
    assert said == [f"{key}: {value_at(before, key)!r} -> {value!r}"]


@pytest.mark.parametrize("schedule", ["plateau", "custom"])
def test_the_rate_belongs_to_a_schedule_that_remembers(schedule: str) -> None:
    """A plateau has lowered the rate already; a schedule of somebody else's may have done anything."""
    target = ["scheduler._target_=torch.optim.lr_scheduler.StepLR"] if schedule == "custom" else []
    before = first_life(f"scheduler={schedule}", *target, "optimizer.lr=1e-3")
    with pytest.raises(UsageError, match=r"optimizer\.lr: 0\.001 -> 0\.0005"):
        refuse_incompatible(before, changed(before, "optimizer.lr", 5e-4), run_name="life")


class Notes(Callback):
    """What the trainer of a life was made of."""

    def on_train_start(self, trainer: Trainer, *_: object) -> None:
        self.facts = {
            "clip": trainer.gradient_clip_val,
            "every": trainer.check_val_every_n_epoch,
            "workers": trainer.train_dataloader.num_workers,
        }


def test_what_is_accepted_is_applied(run_config) -> None:
    always = ("scheduler=constant",)
    directory = run(run_config("life", *always, "optimizer.lr=1e-3", "trainer.max_epochs=1")).directory
    assert read_json(directory.plan)["validation_every_n_epochs"] == 1
    asked = (
        "optimizer.lr=5e-4",
        "trainer.max_epochs=9",
        "trainer.gradient_clip=1.0",
        "trainer.log_every_n_steps=3",
        "validation.every_n_epochs=2",
        "validation.tile_batch=1",
        "early_stopping.patience=3",
        "early_stopping.warmup_epochs=0",
        "early_stopping.cooldown_epochs=0",
        "early_stopping.min_delta=1",
        "checkpoint.keep=4",
        "data.workers=1",
    )
    notes = Notes()
    run(run_config("life", *always, *asked), callbacks=[notes])
    assert notes.facts == {"clip": 1.0, "every": 2, "workers": 1}
    rows = list(read_rows(directory.metrics))
    rates = [(row.step, row.value) for row in rows if row.key == "lr"]
    assert rates[:3] == [(step, 1e-3) for step in (1, 2, 3)]
    assert rates[3:]
    assert all(step % 3 == 0 and rate == 5e-4 for step, rate in rates[3:])
    validated = [row.epoch for row in rows if row.key == "val/score"]
    assert validated == [1, 2, 4, 6]  # the patience of 3, asked for after epoch 1, has run out since epoch 2
    assert len(load_index(directory.checkpoints)) == 4
    assert read_json(directory.plan)["tile_batch"] == 1


def test_a_moved_data_set_goes_on_and_another_of_its_name_does_not(
    run_config, nnunet_raw, stop_after, tmp_path: Path
) -> None:
    run(run_config("life", "trainer.max_epochs=1"))
    moved = shutil.move(tmp_path / "Dataset900_Phantom", tmp_path / "elsewhere")
    directory = run(run_config("life", data_root=Path(moved))).directory
    assert max(entry.epoch for entry in load_index(directory.checkpoints)) == 2
    other = nnunet_raw(cases=8, seed=1)
    with pytest.raises(UsageError):
        run(run_config("life", "trainer.max_epochs=3", data_root=other))


def test_plan_and_roles_from_elsewhere_are_refused(run_config) -> None:
    directory = run(run_config("life", "trainer.max_epochs=1")).directory
    plan, split = read_json(directory.plan), read_json(directory.split)
    first = split["train"][0]
    tampered = [
        (directory.plan, {**plan, "spacing": [2.0, 2.0, 2.0]}, r"plan.spacing: \[1.0, 1.0, 1.0\] -> \[2.0, 2.0, 2.0\]"),
        (
            directory.plan,
            {**plan, "labels": {**plan["labels"], "names": ["background", "a", "b"]}},
            "plan.labels.names",
        ),
        (directory.plan, {**plan, "batch_size": 4}, "plan.batch_size: 2 -> 4"),
        (
            directory.split,
            {**split, "train": split["train"][1:], "tuning": [*split["tuning"], first]},
            f"roles.{first}: 'train' -> 'tuning'",
        ),
    ]
    for path, content, named in tampered:
        whole = path.read_bytes()
        write_json(path, content)
        with pytest.raises(UsageError, match=named) as refused:
            run(run_config("life"))
        assert "another run_name" in refused.value.mend
        path.write_bytes(whole)
    run(run_config("life"))


def test_a_damaged_plan_or_split_is_named_and_a_lost_one_is_made_again(run_config) -> None:
    directory = run(run_config("life", "trainer.max_epochs=1")).directory
    for path in (directory.plan, directory.split):
        whole = path.read_bytes()
        for content in (whole[: len(whole) // 2], b"", json.dumps({"name": 1}).encode()):
            path.write_bytes(content)
            with pytest.raises(StorageError, match=path.name) as damaged:
                run(run_config("life"))
            assert damaged.value.exit_code == ExitCode.IO
        path.unlink()
        run(run_config("life", "trainer.max_epochs=1"))
        assert read_json(path).keys() == json.loads(whole).keys()

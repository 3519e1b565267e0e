"""`status` as table, text and JSON, on whole and damaged runs."""

import json
from pathlib import Path

import pytest
import torch

from segkit.errors import UsageError
from segkit.runs.checkpoints import write_checkpoint
from segkit.runs.directory import RunDirectory
from segkit.runs.evaluations import QUEUE
from segkit.runs.files import write_json
from segkit.runs.manifest import STATE, Entry, checkpoint_path
from segkit.workflows import status


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        run = RunDirectory(tmp_path / name).create()
        run.save_config({"trainer": {"max_epochs": 9}})
        for step, score in ((4, 0.75), (8, 0.5)):
            write_checkpoint(
                checkpoint_path(run.checkpoints, step),
                Entry(step=step, n=2 * step, epoch=step // 4, validated_n=2 * step, score=score),
                model={"w": torch.zeros(1)},
                optimizer={},
                state={"lr_schedulers": []},
            )
    return tmp_path


def config(root: Path, run: str | None = None, *, as_json: bool = False) -> dict:
    return {"run": run, "json": as_json, "paths": {"runs": str(root)}}


def test_one_run(root: Path, capsys) -> None:
    status.run(config(root, "a"))
    text = capsys.readouterr().out
    assert "a: never started" in text
    assert "2 of 9, step 8, 16 samples" in text
    assert "0.7500 in epoch 1, 1 epochs since" in text
    assert "step-00000008: epoch 2, step 8, 16 samples; weights, optimizer, scheduler" in text


def test_an_evaluation_beside_the_training(root: Path, capsys) -> None:
    run = RunDirectory(root / "a")
    run.evaluations.mkdir()
    write_json(run.evaluations / QUEUE, {"running": 4, "waiting": 8})
    with run.lock():
        status.run(config(root, "a"))
    assert "evaluation   step 4 running, step 8 waiting" in capsys.readouterr().out


def test_all_runs(root: Path, capsys) -> None:
    status.run(config(root))
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["run", "state", "epoch"]
    assert [row.split()[0] for row in rows] == ["a", "b"]


def test_json_is_strict_and_the_same_facts(root: Path, capsys) -> None:
    (facts,) = status.run(config(root, str(root / "a"), as_json=True))
    assert json.loads(capsys.readouterr().out) == facts
    both = status.run(config(root, as_json=True))
    assert json.loads(capsys.readouterr().out) == both


def test_damage_is_named(root: Path, capsys) -> None:
    (checkpoint_path(root / "a" / "checkpoints", 8) / STATE).write_bytes(b"x")
    status.run(config(root, "a"))
    text = capsys.readouterr().out
    assert "problem      step-00000008: state.pt" in text
    assert "resume       step-00000004" in text


def test_no_run(root: Path, tmp_path_factory, capsys) -> None:
    with pytest.raises(UsageError, match="no run of that name"):
        status.run(config(root, "c"))
    status.run(config(tmp_path_factory.mktemp("empty")))
    assert "no run in" in capsys.readouterr().out

"""What a run folder says, whatever lies in it."""

import json
from pathlib import Path

import pytest
from tests.runs.test_index import write

from segkit.runs.directory import RunDirectory
from segkit.runs.manifest import MANIFEST, MODEL, checkpoint_path
from segkit.runs.standing import standing


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "run").create()
    run.save_config({"trainer": {"max_epochs": 10}})
    for step, score in enumerate([0.5, 0.7, 0.6, 0.4], start=1):
        write(run.checkpoints, step, score)
    return run


def test_progress_and_score(run: RunDirectory) -> None:
    run.save_status("preempted", reason="SIGTERM")
    facts = standing(run)
    assert facts["state"] == "preempted"
    assert facts["reason"] == "SIGTERM"
    assert (facts["epoch"], facts["max_epochs"], facts["step"], facts["samples"]) == (4, 10, 4, 8)
    assert (facts["best_score"], facts["best_epoch"], facts["epochs_without_improvement"]) == (0.7, 2, 2)
    assert facts["resumes_from"]["checkpoint"] == "step-00000004"
    assert facts["resumes_from"]["optimizer"]
    assert facts["problems"] == []
    json.dumps(facts, allow_nan=False)


def test_states(run: RunDirectory) -> None:
    run.save_status("running")
    assert standing(run)["state"] == "killed"
    with run.lock():
        facts = standing(run)
        assert facts["state"] == "running"
        assert "process" in facts["holder"]


def test_damaged_checkpoint_is_named_and_passed_over(run: RunDirectory) -> None:
    (checkpoint_path(run.checkpoints, 4) / MODEL).write_bytes(b"")
    facts = standing(run)
    assert facts["resumes_from"]["checkpoint"] == "step-00000003"
    assert [c["state"] for c in facts["checkpoints"]] == ["whole"] * 3 + ["damaged"]
    assert "step-00000004" in facts["problems"][0]


HOSTILE = ["", "{", "[]", "null", '{"a": ' * 5000, "\x00\xff", "!!python/object/apply:os.system ['touch pwned']"]


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_files_are_problems_not_crashes(run: RunDirectory, content: str) -> None:
    files = [run.config, run.status, run.plan, run.mlflow, checkpoint_path(run.checkpoints, 4) / MANIFEST]
    for file in files:
        file.write_bytes(content.encode("latin-1"))
    facts = standing(run)
    assert facts["epoch"] == 3
    assert {problem.split(":")[0] for problem in facts["problems"]} == {
        "config.yaml",
        "STATUS.json",
        "plan.json",
        "mlflow.json",
        "step-00000004",
    }


def test_empty_folder(tmp_path: Path) -> None:
    facts = standing(RunDirectory(tmp_path))
    assert facts["state"] == "never started"
    assert facts["resumes_from"] is None

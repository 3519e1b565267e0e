"""What a run folder says, whatever lies in it."""

import hashlib
import json
import os
import shutil
import time
import tracemalloc
from pathlib import Path

import pytest
import torch
from tests.runs.test_index import write

from segkit.runs.checkpoints import write_checkpoint
from segkit.runs.directory import RunDirectory
from segkit.runs.evaluations import QUEUE
from segkit.runs.files import write_json
from segkit.runs.manifest import MANIFEST, MODEL, Entry, checkpoint_path, digest_of, read_manifest
from segkit.runs.scores import SCORE, write_score
from segkit.runs.standing import standing
from segkit.workflows.status import describe, table


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


def test_an_evaluation_apart_is_told_while_the_run_is_held(run: RunDirectory) -> None:
    run.evaluations.mkdir()
    write_json(run.evaluations / QUEUE, {"running": 3, "waiting": None})
    assert standing(run)["evaluating"] is None
    with run.lock():
        assert standing(run)["evaluating"] == {"running": 3}
        write_json(run.evaluations / QUEUE, {"running": "rm -rf", "waiting": -1})
        assert standing(run)["evaluating"] is None
        (run.evaluations / QUEUE).write_text("{")
        assert "queue.json" in standing(run)["problems"][0]


def test_a_score_that_came_later_counts_and_a_damaged_one_is_a_problem(run: RunDirectory) -> None:
    folder = checkpoint_path(run.checkpoints, 5)
    write_checkpoint(folder, Entry(step=5, n=10, epoch=5), model={"w": torch.zeros(1)}, optimizer={}, state={})
    write_score(folder, score=0.9, per_case={}, manifest=digest_of(read_manifest(folder)))
    assert (standing(run)["best_score"], standing(run)["best_epoch"]) == (0.9, 5)
    (folder / SCORE).write_text("{")
    facts = standing(run)
    assert facts["best_score"] == 0.7
    assert f"step-00000005: {SCORE} is not used" in facts["problems"][0]
    assert facts["checkpoints"][-1]["state"] == "whole"


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


def _seconds(function) -> float:
    started = time.monotonic()
    function()
    return time.monotonic() - started


NO_HANG_S = 15.0


@pytest.mark.parametrize("name", ["config.yaml", "STATUS.json", "plan.json", "mlflow.json", "run.lock", "checkpoints"])
@pytest.mark.parametrize("kind", ["fifo", "device", "loop", "folder", "gone"])
def test_what_is_no_file_is_told_and_not_waited_for(run: RunDirectory, tmp_path: Path, name: str, kind: str) -> None:
    if name == "plan.json":
        run.save_config({"trainer": {}})  # then the plan says how many epochs there are
    path = run.path / name
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    make = {
        "fifo": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "loop": lambda: path.symlink_to(path.name),
        "folder": path.mkdir,
        "gone": lambda: path.symlink_to(tmp_path / "nowhere"),
    }
    make[kind]()
    facts = {}
    assert _seconds(lambda: facts.update(standing(run))) < NO_HANG_S
    json.dumps(facts, allow_nan=False)
    told = any(problem.startswith(name) for problem in facts["problems"])
    assert told or name == "checkpoints"
    assert facts["resumes_from"] is None if name == "checkpoints" else facts["resumes_from"]


def test_a_manifest_that_is_no_file(run: RunDirectory) -> None:
    path = checkpoint_path(run.checkpoints, 4) / MANIFEST
    path.unlink()
    os.mkfifo(path)
    assert _seconds(lambda: standing(run)) < NO_HANG_S
    assert standing(run)["resumes_from"]["checkpoint"] == "step-00000003"


def test_large_files_are_not_read(run: RunDirectory) -> None:
    for path in (run.config, run.status, run.plan, checkpoint_path(run.checkpoints, 4) / MANIFEST):
        with path.open("wb") as file:
            file.truncate(100 << 20)
    tracemalloc.start()
    facts = standing(run)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20
    assert sum("bytes; a file of a run has at most" in problem for problem in facts["problems"]) == 4


def _enlarge(run: RunDirectory, step: int, size: int) -> None:
    """A sparse file, and a manifest that agrees with its size."""
    folder = checkpoint_path(run.checkpoints, step)
    with (folder / MODEL).open("r+b") as file:
        file.truncate(size)
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["checksum"]
    manifest["files"][MODEL]["bytes"] = size
    checksum = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps({**manifest, "checksum": checksum}))


def test_what_would_take_for_ever_is_not_verified(run: RunDirectory) -> None:
    _enlarge(run, 4, 1 << 40)
    facts = {}
    assert _seconds(lambda: facts.update(standing(run))) < NO_HANG_S
    assert [checkpoint["state"] for checkpoint in facts["checkpoints"]] == ["whole"] * 3 + ["not verified"]
    assert facts["resumes_from"]["checkpoint"] == "step-00000004"
    assert facts["resumes_from"]["verified"] is False
    assert "checksums were not compared" in facts["problems"][0]


def test_the_newest_are_verified_first(run: RunDirectory) -> None:
    size = standing(run)["checkpoints"][-1]["bytes"]
    facts = standing(run, max_hashed_bytes=2 * size + 1)
    assert [checkpoint["state"] for checkpoint in facts["checkpoints"]] == ["not verified"] * 2 + ["whole"] * 2
    assert facts["resumes_from"]["verified"] is True


def test_a_checkpoint_under_another_steps_name_is_damaged(run: RunDirectory) -> None:
    checkpoint_path(run.checkpoints, 4).rename(checkpoint_path(run.checkpoints, 9))
    facts = standing(run)
    assert facts["checkpoints"][-1]["state"] == "damaged"
    assert "calls itself step 4" in facts["problems"][0]


ODD = [
    {"state": ["running"]},
    {"state": "\x1b[2J"},
    {"state": {"a": float("nan")}, "reason": float("inf")},
    {"state": "finished", "reason": {"deep": [1] * 100_000}},
    {"state": "finished", "reason": "\x1b]0;title\x07" + "x" * 10**6},
]


@pytest.mark.parametrize("status", ODD, ids=range(len(ODD)))
def test_odd_values_are_shown_as_plain_text(run: RunDirectory, status: dict[str, object]) -> None:
    run.status.write_text(json.dumps(status))
    run.mlflow.write_text(json.dumps({"run_id": status}))
    facts = standing(run)
    text = json.dumps(facts, allow_nan=False, ensure_ascii=False)
    assert len(text) < 20_000
    assert not any(ord(character) < 32 for character in text)
    assert describe(facts)
    assert table([facts])


@pytest.mark.parametrize("value", ["0x" + "f" * 5000, "[1]", "true", "-3", ".nan", "1e400", "2001-01-01", "!!int ''"])
def test_a_number_of_epochs_that_is_none(run: RunDirectory, value: str) -> None:
    run.config.write_text(f"trainer: {{max_epochs: {value}}}")
    assert standing(run)["max_epochs"] is None


def test_very_many_checkpoints(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segkit.runs.standing.MAX_CHECKPOINTS", 3)
    facts = standing(run)
    assert [checkpoint["step"] for checkpoint in facts["checkpoints"]] == [2, 3, 4]
    assert "4 folders" in facts["problems"][0]

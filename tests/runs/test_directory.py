"""The run folder's names, and what it keeps."""

from pathlib import Path

import pytest

from segkit.errors import RunInUseError, StorageError, UsageError
from segkit.runs.directory import RunDirectory


def test_names_are_fixed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunDirectory(Path("runs/a b=ü")).create()
    monkeypatch.chdir("/")
    assert run.path == tmp_path / "runs" / "a b=ü"
    names = {p: getattr(run, p).name for p in ("config", "plan", "split", "metrics", "timings", "status", "report")}
    assert names == {
        "config": "config.yaml",
        "plan": "plan.json",
        "split": "split.json",
        "metrics": "metrics.jsonl",
        "timings": "timings.jsonl",
        "status": "STATUS.json",
        "report": "report.html",
    }
    assert run.checkpoints.is_dir()


def test_config_and_status_come_back(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path).create()
    assert not run.exists
    run.save_config({"trainer": {"max_epochs": 3, "lr": 1e-3}, "list": [1, 2], "none": None})
    assert run.exists
    assert run.load_config() == {"trainer": {"max_epochs": 3, "lr": 1e-3}, "list": [1, 2], "none": None}
    assert run.load_status() == {}
    run.save_status("failed", reason="x")
    assert run.load_status() == {"state": "failed", "reason": "x"}
    run.status.write_text("{torn")
    assert run.load_status() == {}


def test_no_run_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run"):
        RunDirectory(tmp_path).load_config()


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be made"):
        RunDirectory(tmp_path / "file" / "run").create()


def test_lock(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path).create()
    with run.lock() as me:
        assert run.holder() == me
        with pytest.raises(RunInUseError), run.lock():
            pass
    assert run.holder() is None


def test_environment(tmp_path: Path) -> None:
    facts = RunDirectory(tmp_path).create().save_environment()
    assert facts["packages"]["torch"]
    assert facts["processors"] >= 1

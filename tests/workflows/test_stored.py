"""What a run folder says, understood or refused by name."""

import json
import os
from pathlib import Path

import pytest

from segkit.errors import StorageError
from segkit.runs.directory import RunDirectory
from segkit.workflows.stored import require_own_files, stored_plan, stored_roles, understood


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run").create()


@pytest.mark.parametrize("name", ["run.lock", "log.txt", "metrics.jsonl", "timings.jsonl"])
@pytest.mark.parametrize("kind", ["link", "link to nothing", "fifo", "folder"])
def test_training_writes_into_no_link_and_waits_for_no_fifo(
    run: RunDirectory, tmp_path: Path, name: str, kind: str
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    path = run.path / name
    make = {
        "link": lambda: path.symlink_to(precious),
        "link to nothing": lambda: path.symlink_to(tmp_path / "new"),
        "fifo": lambda: os.mkfifo(path),
        "folder": path.mkdir,
    }
    make[kind]()
    with pytest.raises(StorageError, match=name) as caught:
        require_own_files(run)
    assert caught.value.mend
    assert precious.read_text() == "mine"


def test_plain_files_and_none_are_its_own(run: RunDirectory) -> None:
    require_own_files(run)
    for name in ("run.lock", "log.txt", "metrics.jsonl", "timings.jsonl"):
        (run.path / name).touch()
    require_own_files(run)


@pytest.mark.parametrize("content", ["{}", "[]", '{"train": 3}', '{"train": [], "tuning": [], "test": null}', "{"])
def test_roles_that_are_none(run: RunDirectory, content: str) -> None:
    run.split.write_text(content)
    with pytest.raises(StorageError, match=r"split\.json"):
        stored_roles(run)


def test_a_plan_that_is_missing_or_none(run: RunDirectory) -> None:
    with pytest.raises(StorageError, match=r"plan\.json"):
        stored_plan(run)
    run.plan.write_text(json.dumps({"name": "tiny"}))
    with pytest.raises(StorageError, match=r"plan\.json"):
        stored_plan(run)


def test_an_error_of_ours_keeps_its_words(tmp_path: Path) -> None:
    def read() -> None:
        raise StorageError("the disk is full")

    with pytest.raises(StorageError, match="the disk is full"):
        understood(tmp_path, read)

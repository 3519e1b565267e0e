"""Every mode of the key `resume`."""

import os
from pathlib import Path

import pytest
from tests.runs.test_index import write

from segkit.errors import StorageError, UsageError
from segkit.runs.directory import RunDirectory
from segkit.runs.identity import RECORD, identity
from segkit.runs.manifest import MANIFEST, MODEL, checkpoint_path, checkpoint_steps
from segkit.runs.resume import find_resume_point, recover, rewind_to

DEAD = 2**22 + 1
"""A process id that no system gives."""


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "run").create()
    run.save_config({})
    for step in (1, 2, 3):
        write(run.checkpoints, step, 0.1 * step)
    return run


def test_auto_and_must_take_the_newest(run: RunDirectory) -> None:
    for mode in ("auto", "must"):
        assert find_resume_point(run, mode).entry.step == 3


def test_nothing_there(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "new")
    assert find_resume_point(run, "auto") is None
    assert find_resume_point(run, "never") is None
    with pytest.raises(UsageError, match="nothing to go on from"):
        find_resume_point(run, "must")


def test_never_is_refused_where_a_run_is(run: RunDirectory) -> None:
    with pytest.raises(UsageError, match="of this name already"):
        find_resume_point(run, "never")


@pytest.mark.parametrize("mode", ["auto", "must"])
def test_damage_never_leads_to_a_silent_fresh_start(run: RunDirectory, mode: str) -> None:
    (checkpoint_path(run.checkpoints, 3) / MODEL).unlink()
    assert find_resume_point(run, mode).entry.step == 2
    for step in (1, 2):
        (checkpoint_path(run.checkpoints, step) / MODEL).unlink()
    with pytest.raises(StorageError, match="No checkpoint"):
        find_resume_point(run, mode)


def test_named_checkpoint_rewinds(run: RunDirectory) -> None:
    for name in ("step-00000002", str(checkpoint_path(run.checkpoints, 2))):
        point = find_resume_point(run, name)
        assert point.entry.step == 2
    rewind_to(run, point)
    assert checkpoint_steps(run.checkpoints) == [1, 2]


def test_named_checkpoint_that_is_damaged_or_foreign(run: RunDirectory, tmp_path: Path) -> None:
    (checkpoint_path(run.checkpoints, 2) / MODEL).unlink()
    with pytest.raises(StorageError, match="resume=auto"):
        find_resume_point(run, "step-00000002")
    write(tmp_path / "other", 2, 0.5)
    for name in ("step-00000009", str(tmp_path / "other" / "step-00000002"), "atuo"):
        with pytest.raises(UsageError, match="no checkpoint of this run"):
            find_resume_point(run, name)


def test_recovery_removes_leftovers_and_gives_the_run_an_id(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "r").create()
    (run.path / f".config.yaml.{DEAD}.tmp").write_text("half")
    (run.path / f".report.html.{os.getpid()}.tmp").write_text("being written by another verb")
    (run.checkpoints / ".step-00000001.123.tmp").mkdir()
    (run.path / ".keep").write_text("the user's")
    recover(run)
    assert sorted(p.name for p in run.path.iterdir()) == sorted(
        [".keep", f".report.html.{os.getpid()}.tmp", "checkpoints", "overlays"]
    )
    assert [p.name for p in run.checkpoints.iterdir()] == [RECORD]
    own = identity(run.checkpoints)
    recover(run)
    assert identity(run.checkpoints) == own


@pytest.mark.parametrize("harm", ["lost", "damaged"])
def test_a_lost_id_comes_back_from_the_newest_checkpoint_that_names_one(tmp_path: Path, harm: str) -> None:
    run = RunDirectory(tmp_path / "r").create()
    recover(run)
    own = identity(run.checkpoints)
    for step in (1, 2):
        write(run.checkpoints, step, 0.5)
    (checkpoint_path(run.checkpoints, 2) / MANIFEST).write_text("{")
    (run.checkpoints / RECORD).unlink() if harm == "lost" else (run.checkpoints / RECORD).write_text("{}")
    recover(run)
    assert identity(run.checkpoints) == own


def test_a_checkpoint_that_was_put_aside_comes_back(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "r").create()
    write(run.checkpoints, 1, 0.5)
    path = checkpoint_path(run.checkpoints, 1)
    path.rename(path.with_name(f".{path.name}.aside"))
    assert find_resume_point(run) is None
    recover(run)
    assert find_resume_point(run).path == path

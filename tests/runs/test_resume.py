"""Every mode of the key `resume`."""

from pathlib import Path

import pytest
from tests.runs.test_index import write

from segkit.errors import StorageError, UsageError
from segkit.runs.directory import RunDirectory
from segkit.runs.manifest import MODEL, checkpoint_path, checkpoint_steps
from segkit.runs.resume import find_resume_point, rewind_to


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

"""The test cases take no part in training: not in roles, not in the plan, not by a single open file."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from segkit.configuration import compose
from segkit.data.layouts import discover
from segkit.data.pipeline import open_dataset
from segkit.data.sample import sample_root
from segkit.errors import UsageError
from segkit.workflows import evaluate
from segkit.workflows.train import run

_OPENED: list[str] | None = None


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _OPENED is not None:
        _OPENED.append(str(arguments[0]))


@contextmanager
def files_opened() -> Iterator[list[str]]:
    """Every path that this process opens meanwhile, whatever opens it in Python."""
    global _OPENED
    if not getattr(sys, "_segkit_audited", False):
        sys.addaudithook(_hook)  # cannot be taken out again
        sys._segkit_audited = True
    _OPENED = []
    try:
        yield _OPENED
    finally:
        _OPENED = None


def names_of(case_ids: list[str], root: Path) -> set[str]:
    cases = {case.case_id: case for case in discover(root).cases}
    return {path.name for case_id in case_ids for path in (*cases[case_id].images, cases[case_id].label)}


def test_no_group_has_two_roles_in_the_sample_data(tmp_path):
    roles = open_dataset(compose("train", [f"paths.runs={tmp_path}"])).roles.to_json()
    group = {case.case_id: case.group for case in discover(sample_root()).cases}
    people = {role: {group[case_id] for case_id in roles[role]} for role in ("train", "tuning", "test")}
    assert len(people["test"]) == 8
    assert len(people["tuning"]) == 5
    assert not people["train"] & people["tuning"]
    assert not people["train"] & people["test"]
    assert not people["tuning"] & people["test"]


def test_test_files_are_opened_by_evaluate_and_by_nothing_before_it(run_config):
    config = run_config("traced")
    root = Path(config["data"]["root"])
    with files_opened() as opened:
        path = run(config).directory.path
    roles = json.loads((path / "split.json").read_text())
    names = {Path(name).name for name in opened}
    assert names_of(roles["train"], root) & names  # the hook does see such files
    assert not names_of(roles["test"], root) & names
    with files_opened() as opened:
        evaluate.run(compose("evaluate", [f"run={path}", "overlays=0"]))
    assert names_of(roles["test"], root) <= {Path(name).name for name in opened}


def test_garbage_in_the_test_cases_changes_nothing_before_evaluate(
    run_config, end_state, assert_bitwise_equal, tmp_path
):
    config = run_config("clean")
    clean = run(config).directory.path
    roles = json.loads((clean / "split.json").read_text())
    spoiled = tmp_path / "spoiled" / Path(config["data"]["root"]).name
    shutil.copytree(config["data"]["root"], spoiled)
    for name in names_of(roles["test"], spoiled):
        for path in spoiled.rglob(name):
            path.write_bytes(b"this is no image")
    other = run(run_config("spoiled", f"paths.cache={tmp_path / 'cache'}", data_root=spoiled)).directory.path
    assert (other / "plan.json").read_text() == (clean / "plan.json").read_text()
    assert_bitwise_equal(end_state(clean), end_state(other))


def test_scoring_a_case_that_was_trained_on_is_refused_or_marked(run_config, capsys):
    path = run(run_config("seen", "trainer.max_epochs=1")).directory.path
    with pytest.raises(UsageError, match="allow_seen"):
        evaluate.run(compose("evaluate", [f"run={path}", "subset=train"]))
    capsys.readouterr()
    evaluate.run(compose("evaluate", [f"run={path}", "subset=train", "allow_seen=true", "overlays=0"]))
    assert "SEEN CASES" in capsys.readouterr().out
    assert json.loads((path / "evaluation/train/summary.json").read_text())["label"] == "SEEN CASES"

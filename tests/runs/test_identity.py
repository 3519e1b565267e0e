"""A run has one id for life, and what was decided when it began is held against what it finds later."""

import shutil
from pathlib import Path

import pytest

from segkit.errors import UsageError
from segkit.runs.identity import RECORD, claim, hold_to_decisions, identity


def test_the_id_is_drawn_once_and_goes_with_the_folder(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    assert identity(one) is None
    own = claim(one)
    assert claim(one) == claim(one, "another") == identity(one) == own
    assert claim(other) != own
    moved = Path(shutil.move(one, tmp_path / "moved"))
    assert identity(moved) == own


@pytest.mark.parametrize("content", ["", "{", "[]", '{"run": "x"}', '{"run": 3, "checksum": "y"}'])
def test_a_damaged_record_is_none_and_takes_the_id_that_is_known(tmp_path: Path, content: str) -> None:
    (tmp_path / RECORD).write_text(content)
    assert identity(tmp_path) is None
    assert claim(tmp_path, "known") == "known"
    assert identity(tmp_path) == "known"


def test_decisions_are_held(tmp_path: Path) -> None:
    own = claim(tmp_path)
    first = {"plan": {"spacing": (1.0, 2.0), "features": [8, 16]}, "roles": {"a": "train", "b": "test"}}
    for _ in range(2):
        hold_to_decisions(tmp_path, first, run_name="r")
    other = {"plan": {"spacing": (1.0, 3.0), "features": [8, 16]}, "roles": {"a": "train"}}
    with pytest.raises(UsageError, match="run_name=r") as refused:
        hold_to_decisions(tmp_path, other, run_name="r")
    assert refused.value.why == "plan.spacing: [1.0, 2.0] -> [1.0, 3.0]; roles.b: 'test' -> None"
    hold_to_decisions(tmp_path, first, run_name="r")
    assert identity(tmp_path) == own


def test_many_differences_are_counted(tmp_path: Path) -> None:
    hold_to_decisions(tmp_path, {"roles": {f"case{i:02d}": "train" for i in range(20)}}, run_name="r")
    with pytest.raises(UsageError, match="and 12 more"):
        hold_to_decisions(tmp_path, {"roles": {f"case{i:02d}": "test" for i in range(20)}}, run_name="r")

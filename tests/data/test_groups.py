from pathlib import Path

import pytest

from segkit.data.groups import groups_are_known, with_groups
from segkit.errors import DataError, UsageError
from segkit.types import Case

CASES = tuple(Case(name, (Path(f"{name}.png"),), None, name) for name in ("p1_a", "p1_b", "p2_a"))


def _groups(cases):
    return [case.group for case in cases]


def test_without_a_word_every_case_is_its_own_group(tmp_path):
    assert with_groups(CASES, None, root=tmp_path) == CASES
    assert not groups_are_known(CASES)


def test_a_table_beside_the_data_is_found_and_another_can_be_named(tmp_path):
    (tmp_path / "groups.csv").write_text("case,group\np1_a,x\np1_b,x\np2_a,y\nother,z\n")
    cases = with_groups(CASES, None, root=tmp_path)
    assert _groups(cases) == ["x", "x", "y"]
    assert groups_are_known(cases)
    (tmp_path / "other.csv").write_text("\ufeffgroup , case\nA,p1_a\nB,p1_b\nC,p2_a\n", encoding="utf-8")
    assert _groups(with_groups(CASES, "other.csv", root=tmp_path)) == ["A", "B", "C"]
    assert _groups(with_groups(CASES, tmp_path / "other.csv", root=Path("/"))) == ["A", "B", "C"]


def test_a_pattern_takes_the_group_from_the_whole_id(tmp_path):
    assert _groups(with_groups(CASES, "regex:(.+)_.", root=tmp_path)) == ["p1", "p1", "p2"]
    with pytest.raises(DataError, match="does not match 3 of 3"):
        with_groups(CASES, "regex:(p)", root=tmp_path)
    with pytest.raises(UsageError, match="exactly one group"):
        with_groups(CASES, "regex:.+", root=tmp_path)
    with pytest.raises(UsageError, match="no regular expression"):
        with_groups(CASES, "regex:(", root=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("case,person\np1_a,x\n", "lacks a column"),
        ("case,group\np1_a,x\n", "leaves out 2 of 3"),
        ("case,group\np1_a,x\np1_b,\np2_a,y\n", "leaves out 1 of 3"),
        ("case,group\np1_a,x\np1_a,y\np1_b,x\np2_a,y\n", "in two groups"),
        ("", "lacks a column"),
    ],
)
def test_bad_tables(tmp_path, content, message):
    (tmp_path / "groups.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        with_groups(CASES, None, root=tmp_path)


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="not there"):
        with_groups(CASES, "gone.csv", root=tmp_path)

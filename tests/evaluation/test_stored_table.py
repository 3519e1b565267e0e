import numpy as np
import pytest
from tests.evaluation_tables import write_tables

from segkit.errors import DataError, UsageError
from segkit.evaluation.stored_table import read_table

NAN = float("nan")
DICE = {"c2": (0.5, NAN), "c1": (0.75, 0.25)}


@pytest.fixture
def folder(tmp_path):
    return write_tables(tmp_path / "test", DICE, people={"c1": "p", "c2": "p"}, run="one")


def rewrite(folder, old, new):
    path = folder / "per_case.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_what_evaluate_wrote_is_read_back(folder):
    table = read_table(folder)
    assert (table.cases, table.classes, table.run) == (("c1", "c2"), ("front", "back"), "one")
    assert dict(table.groups) == {"c1": "p", "c2": "p"}
    np.testing.assert_array_equal(table.values("dice", ["front", "back"]), [[0.75, 0.25], [0.5, NAN]])
    np.testing.assert_array_equal(table.values("n_reference", ["back", "front"]), [[1000, 1000], [0, 1000]])
    assert "undefined" in table.rules


def test_columns_are_found_by_name_wherever_they_stand(folder):
    lines = (folder / "per_case.csv").read_text().splitlines()
    wider = ["hd95," + lines[0], *("inf," + line for line in lines[1:])]
    (folder / "per_case.csv").write_text("\n".join(wider) + "\n")
    table = read_table(folder)
    assert np.isposinf(table.values("hd95", table.classes)).all()
    np.testing.assert_array_equal(table.values("dice", ["front"]), [[0.75], [0.5]])


def test_a_run_name_that_is_none_is_not_shown(tmp_path):
    named = write_tables(tmp_path / "folder", DICE, run="../../\x1b[2J")
    assert read_table(named).run == "folder"


def test_a_column_that_is_not_there(folder):
    with pytest.raises(DataError, match=r"no column hd95[\s\S]*dice, iou, precision"):
        read_table(folder).values("hd95", ["front"])


@pytest.mark.parametrize("name", ["per_case.csv", "summary.json"])
def test_an_evaluation_that_is_not_whole(folder, name):
    (folder / name).unlink()
    with pytest.raises(UsageError, match=name):
        read_table(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("case_id", "case", "no names of cases"),
        ("c1,p,front,0.75", "c1,p,front", "line 2"),
        ("c1,p,front,", "c1,p,front,1,", "line 2"),
        ("c1,p,back", "c1,p,front", "two lines of one class"),
        ("c1,p,back", "c0,p,back", "lacks a class"),
        ("c1,p,back", "c1,q,back", "two groups"),
        ("c1,p", '"c1,p', "cannot be read"),
    ],
)
def test_a_table_that_is_none(folder, old, new, message):
    rewrite(folder, old, new)
    with pytest.raises(DataError, match=message):
        read_table(folder)


def test_cells_that_are_no_numbers_and_tables_without_cases(folder):
    rewrite(folder, "0.75", "good")
    with pytest.raises(DataError, match="case c1, class front, column dice"):
        read_table(folder).values("dice", ["front"])
    (folder / "per_case.csv").write_text("case_id,group,class,dice\n")
    with pytest.raises(DataError, match="no case"):
        read_table(folder)
    (folder / "summary.json").write_text("[]")
    with pytest.raises(DataError, match="cannot be read"):
        read_table(folder)

import csv
import json

import pytest
from tests.evaluation_tables import write_tables

from segkit.evaluation.comparison import compare
from segkit.evaluation.comparison_files import write_comparison
from segkit.evaluation.stored_table import read_table

NAN = float("nan")
DICE = {f"c{k}": (0.5 + 0.01 * k, 0.75) for k in range(6)} | {"c5": (0.5, NAN)}


@pytest.fixture
def comparison(tmp_path):
    better = {case: (front + 0.125, back) for case, (front, back) in DICE.items()}
    sides = [[read_table(write_tables(tmp_path / name, dice))] for name, dice in (("a", DICE), ("b", better))]
    return compare(*sides, ["dice"], label="test", notes=["a note"])


def test_differences_by_case_and_class(tmp_path, comparison):
    write_comparison(tmp_path / "new" / "out", comparison)
    with (tmp_path / "new" / "out" / "differences.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["case_id", "group", "class", "metric", "reference", "candidate", "difference"]
    assert [(r["case_id"], r["class"]) for r in rows[:3]] == [("c0", "front"), ("c0", "back"), ("c1", "front")]
    assert float(rows[0]["difference"]) == float(rows[0]["candidate"]) - float(rows[0]["reference"])
    assert float(rows[0]["difference"]) == pytest.approx(0.125)
    assert [rows[-1][key] for key in ("reference", "candidate", "difference")] == ["", "", ""]
    assert len(rows) == 12


def test_the_json_says_what_was_compared_and_how(tmp_path, comparison):
    write_comparison(tmp_path, comparison, note="SEEN CASES")
    stored = json.loads((tmp_path / "comparison.json").read_text())
    assert stored == json.loads(json.dumps(comparison.to_dict()))
    assert (stored["scope"], stored["n_cases"], stored["notes"]) == ("models", 6, ["a note"])
    assert stored["family"]["tests"] == ["dice front", "dice mean"]
    assert "p_value" not in json.dumps(stored)
    assert (tmp_path / "differences.csv").read_text().count("SEEN CASES") == 12


def test_a_summary_never_lies_beside_other_differences(tmp_path, comparison):
    write_comparison(tmp_path, comparison)
    (tmp_path / "differences.csv").unlink()
    (tmp_path / "differences.csv").mkdir()
    with pytest.raises(OSError, match=r"differences\.csv"):
        write_comparison(tmp_path, comparison)
    assert not (tmp_path / "comparison.json").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

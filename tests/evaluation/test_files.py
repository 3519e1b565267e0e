import csv
import json
from dataclasses import replace

import pytest

from segkit.evaluation import CaseResult, EvaluationSettings, summarise, write_per_case, write_summary
from segkit.metrics.composite import ClassCounts
from segkit.metrics.lesion import LesionMatch
from segkit.types import Labels

LABELS = Labels(names=("background", "liver"), ids=(0, 7))
RESULTS = [
    CaseResult("b", "p2", (ClassCounts("b", "p2", 1, 0, 3, 0),)),
    CaseResult("a", "p1", (ClassCounts("a", "p1", 1, 6, 2, 4),)),
]


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_per_case_table(tmp_path):
    path = tmp_path / "new" / "per_case.csv"
    write_per_case(path, RESULTS, LABELS)
    header = path.read_text().splitlines()[0]
    assert header == "case_id,group,class,dice,iou,precision,recall,tp,fp,fn,n_reference,n_prediction"
    first, second = read(path)
    assert (first["case_id"], first["group"], first["class"]) == ("a", "p1", "liver")
    assert float(first["dice"]) == 12 / 18  # to the last bit
    assert (first["tp"], first["n_reference"], first["n_prediction"]) == ("6", "10", "8")
    assert (second["dice"], second["fp"]) == ("", "3")
    assert [p.name for p in path.parent.iterdir()] == ["per_case.csv"]


def test_note_on_every_line(tmp_path):
    write_per_case(tmp_path / "t.csv", RESULTS, LABELS, note="SEEN CASES")
    assert [row["note"] for row in read(tmp_path / "t.csv")] == ["SEEN CASES"] * 2


def test_lesion_columns(tmp_path):
    rows = (replace(RESULTS[1].rows[0], lesions=LesionMatch(2, 1, 0, 1.5)),)
    write_per_case(tmp_path / "t.csv", [replace(RESULTS[1], rows=rows)], LABELS)
    (row,) = read(tmp_path / "t.csv")
    assert (row["lesion_tp"], row["lesion_fp"], row["lesion_fn"], row["lesion_iou_sum"]) == ("2", "1", "0", "1.5")


def test_summary_file(tmp_path):
    summary = summarise(RESULTS, LABELS, EvaluationSettings())
    write_summary(tmp_path / "new" / "summary.json", summary, facts={"label": "test", "run": "r"})
    stored = json.loads((tmp_path / "new" / "summary.json").read_text())
    assert next(iter(stored)) == "label"
    assert stored["score"] == pytest.approx(summary.score)
    assert stored["classes"]["liver"]["dice"]["mean"] == pytest.approx(12 / 18)
    assert stored["settings"] == summary.settings.to_dict()

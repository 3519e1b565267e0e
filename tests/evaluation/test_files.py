import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from segkit.evaluation import (
    CaseResult,
    DetailSettings,
    EvaluationSettings,
    count_masks,
    detail_case,
    summarise,
    summarise_details,
    write_per_case,
    write_summary,
)
from segkit.evaluation.stored_table import read_table
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


def test_a_class_that_was_not_annotated_has_a_line_of_names(tmp_path):
    """Empty, where a class that is not there has 0 reference voxels; the reader takes the cells as not applicable."""
    blank = CaseResult("c", "p3", (ClassCounts("c", "p3", 1, 0, 0, 0, annotated=False),))
    reference = np.zeros((5, 5), dtype=np.int16)
    reference[1:3, 1:4] = 1
    told = {"group": "p", "spacing": (1.0, 1.0), "labels": LABELS, "settings": DetailSettings()}
    details = [one for name in "ab" for one in detail_case(reference, reference, case_id=name, **told)]
    path = tmp_path / "per_case.csv"
    write_per_case(path, [*RESULTS, blank], LABELS, details=details, note="SEEN CASES")
    write_summary(tmp_path / "summary.json", summarise([*RESULTS, blank], LABELS, EvaluationSettings()))
    *_, last = read(path)
    assert {name: cell for name, cell in last.items() if cell} == {
        "case_id": "c", "group": "p3", "class": "liver", "note": "SEEN CASES"
    }  # fmt: skip
    table = read_table(tmp_path)
    np.testing.assert_array_equal(table.values("n_reference", ["liver"]), [[10], [0], [np.nan]])
    np.testing.assert_array_equal(table.values("hd95", ["liver"]), [[0], [0], [np.nan]])


def every_mean(record, path=""):
    """Path and value of each mean in summary.json, turned so that larger is better.

    Left out are the two that are no measure of quality alone: distances over the pairs where both sides are there, and
    the bias of the volume.
    """
    for key, value in record.items():
        here = f"{path}/{key}"
        if key in ("where_both", "bias_mm3", "settings", "detail_settings", "rules"):
            continue
        if isinstance(value, dict) and "n_groups" in value:
            yield here, value["mean"] * (-1 if key in ("hd95", "assd") else 1)
        if isinstance(value, dict):
            yield from every_mean(value, here)


def test_no_mean_improves_as_predictions_are_taken_away(tmp_path):
    """Case after case predicts nothing; every mean that is written is looked at, whichever there will be."""
    labels = Labels(("background", "liver", "tumour"), (0, 1, 2))
    rng = np.random.default_rng(7)
    reference = [np.kron(rng.integers(0, 3, (5, 6)), np.ones((3, 3))).astype(np.int16) for _ in range(6)]
    predictions = [np.roll(one, 1, axis=0) for one in reference]
    before = None
    for index in range(len(reference) + 1):
        results, details = [], []
        for name, truth, guess in zip("abcdef", reference, predictions, strict=True):
            told = {"case_id": name, "group": name, "spacing": (1.0, 2.0)}
            rows = count_masks(guess, truth, num_classes=3, settings=EvaluationSettings(), **told)
            results.append(CaseResult(name, name, rows))
            details += detail_case(guess, truth, labels=labels, settings=DetailSettings(), **told)
        detail = summarise_details(details, labels, DetailSettings(), unit="mm", dimensions=2)
        path = tmp_path / "summary.json"
        write_summary(path, summarise(results, labels, EvaluationSettings()), detail=detail)
        after = dict(every_mean(json.loads(path.read_text())))
        if before is not None:
            assert set(after) == set(before)
            assert [key for key in after if after[key] > before[key] + 1e-12] == []
            assert after["/surface/liver/hd95"] < before["/surface/liver/hd95"]
        before = after
        if index < len(predictions):
            predictions[index] = np.zeros_like(predictions[index])
    measured = {key.rsplit("/", 1)[1] for key in before}
    assert measured == {
        *("dice", "iou", "precision", "recall", "hd95", "assd", "nsd", "similarity"),
        *("f1", "panoptic_quality", "component_dice"),
    }
    assert len(before) == 4 + 2 * (4 + 3 + 1 + 5)

"""nnU-Net's own rules for the same counts."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from segkit.evaluation import CaseResult
from segkit.evaluation.nnunet_summary import nnunet_summary, write_nnunet_summary
from segkit.metrics.composite import ClassCounts
from segkit.types import Labels

LABELS = Labels(names=("background", "liver", "tumour"), ids=(0, 2, 5))


def result(case, *counts):
    return CaseResult(case, case, tuple(ClassCounts(case, case, k, *c) for k, c in enumerate(counts, start=1)))


def record(results):
    files = {one.case_id: (Path(f"r/{one.case_id}.nii.gz"), Path(f"p/{one.case_id}.nii.gz")) for one in results}
    return nnunet_summary(results, LABELS, voxels={one.case_id: 100 for one in results}, files=files)


def test_its_rules_by_hand(tmp_path):
    found = record([result("b", (6, 2, 4), (0, 3, 0)), result("a", (1, 0, 1), (0, 0, 0))])
    first, second = found["metric_per_case"]
    assert (first["reference_file"], first["prediction_file"]) == ("r/a.nii.gz", "p/a.nii.gz")
    assert set(first["metrics"]) == {"2", "5"}
    assert second["metrics"]["2"] == {
        "Dice": 12 / 18, "IoU": 0.5, "FN": 4, "FP": 2, "TN": 88, "TP": 6, "n_pred": 8, "n_ref": 10,
    }  # fmt: skip
    assert second["metrics"]["5"]["Dice"] == 0.0  # invented: no mean of ours, 0 of theirs
    assert math.isnan(first["metrics"]["5"]["Dice"])  # nowhere: left out by both
    assert found["mean"]["5"]["Dice"] == 0.0
    assert found["mean"]["2"]["Dice"] == pytest.approx((12 / 18 + 2 / 3) / 2)
    assert found["foreground_mean"]["Dice"] == pytest.approx(found["mean"]["2"]["Dice"] / 2)
    write_nnunet_summary(tmp_path / "nnunet" / "summary.json", found)
    assert json.loads((tmp_path / "nnunet" / "summary.json").read_text())["mean"] == found["mean"]


def test_a_class_that_was_not_annotated_is_in_no_mean():
    partly = result("c", (2, 0, 0), (0, 0, 0))
    partly = replace(partly, rows=(partly.rows[0], replace(partly.rows[1], annotated=False)))
    found = record([result("a", (1, 0, 1), (3, 0, 3)), partly])
    assert all(math.isnan(value) for value in found["metric_per_case"][1]["metrics"]["5"].values())
    assert found["mean"]["5"] == found["metric_per_case"][0]["metrics"]["5"]
    assert found["mean"]["2"]["Dice"] == pytest.approx((2 / 3 + 1) / 2)

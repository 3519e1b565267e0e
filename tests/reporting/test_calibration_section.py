"""What a calibration looks like in the report: the numbers of its files, and nothing else."""

import json
import re

import pytest
from tests.calibration_records import calibrated_cases, write_calibration

from segkit.reporting.calibration_section import calibration_section
from segkit.reporting.evaluation_section import interval_text


@pytest.fixture
def record(tmp_path):
    return write_calibration(tmp_path, ["run"])


def test_the_numbers_are_those_of_the_files(tmp_path, record):
    problems = []
    text = calibration_section(tmp_path, problems)
    assert problems == []
    assert "Temperature 1.500 [1.400, 1.600], fitted on 12 cases of 11 people" in text
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in text.split("<tr>")[2:]]
    for cells, (name, of) in zip(rows, record["test"]["classes"].items(), strict=False):
        ece, brier = ([interval_text(of[metric][when]) for when in ("before", "after")] for metric in ("ece", "brier"))
        pooled = [f"{of['pooled_ece'][when]:.3f}" for when in ("before", "after")]
        assert cells == [name, *ece, *pooled, *brier, "12"]
    assert rows[0][1] == "0.090 [0.090, 0.090]"  # 0.99 given, nine of ten right
    assert rows[0][2].startswith("0.000")
    quality = record["test"]["quality"]
    assert f"Spearman {quality['spearman']:.2f}" in text
    assert "12 cases of 12 people" in text


def test_each_bin_and_each_case_is_a_dot(tmp_path, record):
    text = calibration_section(tmp_path, [])
    bins = sum(
        len(of["reliability"][when]) for of in record["test"]["classes"].values() for when in ("before", "after")
    )
    assert text.count("<circle") == bins + len(calibrated_cases())
    assert "before: p 0.990, right 0.900, 100.0% of the voxels" in text
    assert "case_03: estimated " in text
    assert text.count("<svg") == 3


def test_no_calibration_no_section(tmp_path):
    assert calibration_section(tmp_path, []) == ""


@pytest.mark.parametrize("text", ["{", '{"fit": 3}', '{"fit": {}, "test": {}}'])
def test_a_damaged_one_is_named(tmp_path, text):
    (tmp_path / "calibration.json").write_text(text)
    problems = []
    assert calibration_section(tmp_path, problems) == ""
    assert "calibration.json" in problems[0]


def test_without_its_table_of_cases_the_rest_is_shown(tmp_path, record):
    (tmp_path / "calibration_per_case.csv").unlink()
    text = calibration_section(tmp_path, [])
    assert "Temperature 1.500" in text
    assert "Spearman" not in text


def test_what_is_undefined_is_said(tmp_path, record):
    front = record["test"]["classes"]["front"]
    front["ece"]["before"] = front["brier"]["before"] = {"mean": None, "interval": None, "n": 0, "n_groups": 0}
    front["pooled_ece"]["before"] = None
    front["reliability"]["before"] = []
    record["test"]["quality"] |= {"spearman": None, "interval": None}
    (tmp_path / "calibration.json").write_text(json.dumps(record))
    text = calibration_section(tmp_path, [])
    assert text.count('<td class="number">n/a</td>') == 3
    assert "Spearman n/a" in text

"""The page of a cross-validation says what its files say, of each fold and of all."""

import json
import re

import pytest
from tests.calibration_records import write_calibration
from tests.evaluation_tables import write_tables

from segkit.errors import UsageError
from segkit.reporting.evaluation_section import interval_text
from segkit.reporting.sweep_report import write_sweep_report
from segkit.runs.directory import RunDirectory
from segkit.runs.files import write_yaml
from segkit.runs.sweep import SweepDirectory

NAMES = ("0-fold=0", "1-fold=1", "2-fold=2")
DICE = {f"c{k:02d}": (0.40 + k / 50, 0.9) for k in range(21)}
PNG = b"\x89PNG not really"


def of_fold(fold):
    return {case: dice for k, (case, dice) in enumerate(DICE.items()) if k % 3 == fold}


@pytest.fixture
def sweep(tmp_path):
    """Three folds of seven cases, evaluated; each has drawn its worst ones."""
    folder = tmp_path / "cv"
    for fold, name in enumerate(NAMES):
        run = RunDirectory(folder / name).create()
        run.save_config({})
        run.save_status("finished", epoch=4 + fold, max_epochs=8, selected="step-1")
        write_tables(run.path / "evaluation" / "test", of_fold(fold))
        overlays = run.path / "evaluation" / "test" / "overlays"
        overlays.mkdir()
        for rank, case in enumerate(sorted(of_fold(fold))[:4], start=1):
            (overlays / f"{rank:02d}-{case}.png").write_bytes(PNG + case.encode())
    write_yaml(folder / "multirun.yaml", {"hydra": {"overrides": {"task": ["data.split.fold=0,1,2"]}}})
    write_tables(folder / "evaluation" / "test", DICE, label="out of fold", runs=list(NAMES))
    return SweepDirectory(folder)


def rows(text, heading):
    """The cells of each row of the first table after a heading."""
    table = text.split(f"<h2>{heading}</h2>")[1].split("</table>")[0]
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in table.split("<tr>")[2:]]


def test_each_fold_by_its_own_cases_and_all_of_them_together(sweep):
    text = write_sweep_report(sweep).read_text()
    found = rows(text, "Runs")
    for cells, name, epoch in zip(found, NAMES, (4, 5, 6), strict=False):
        summary = json.loads((sweep.path / name / "evaluation/test/summary.json").read_text())
        assert cells[:5] == [name, "finished", f"epoch {epoch} of 8", "7", "7"]
        assert cells[5] == f"{summary['score']:.4f}"
        assert cells[6] == interval_text(summary["mean"]["dice"])
        assert cells[7:] == [interval_text(summary["classes"][name]["dice"]) for name in ("front", "back")]
    pooled = json.loads((sweep.evaluation / "test" / "summary.json").read_text())
    assert found[3][0] == "all, out of fold"
    assert found[3][3:5] == ["21", "21"]
    assert found[3][6] == interval_text(pooled["mean"]["dice"])
    by_class = rows(text, "All folds together, out of fold")
    assert by_class[0][:2] == ["front", interval_text(pooled["classes"]["front"]["dice"])]
    assert "swept over data.split.fold=0,1,2" in text
    assert 'class="warning"' not in text


def test_the_worst_cases_of_all_folds_with_the_pictures_of_their_folds(sweep):
    text = write_sweep_report(sweep).read_text()
    captions = re.findall(r"<figcaption>(c\d\d): mean Dice", text)
    assert captions == [f"c{k:02d}" for k in range(10)]
    assert "Not drawn" not in text


def test_the_ensemble_and_its_calibration(sweep):
    write_tables(sweep.evaluation / "held_out", {"x": (0.25, 0.75), "y": (0.5, 1.0)})
    write_calibration(sweep.path, NAMES)
    text = write_sweep_report(sweep).read_text()
    assert rows(text, "Ensemble of the runs on held-out people")[2][1] == "0.625"
    assert "Temperature 1.500" in text
    assert text.index("All folds") < text.index("Ensemble") < text.index("Temperature")


def test_runs_that_the_numbers_of_all_leave_out_are_named(sweep):
    RunDirectory(sweep.path / "3-fold=3").create().save_config({})
    text = write_sweep_report(sweep).read_text()
    assert "Not in the numbers of all folds together: 3-fold=3." in text
    assert "never started" in text


def test_a_fold_that_was_evaluated_anew_is_named(sweep):
    write_tables(sweep.path / NAMES[1] / "evaluation" / "test", of_fold(1) | {"c01": (0.99, 0.9)})
    text = write_sweep_report(sweep).read_text()
    assert "Evaluated anew since the numbers of all folds together: 1-fold=1." in text


def test_runs_that_were_not_evaluated(tmp_path):
    RunDirectory(tmp_path / "s" / "seed=0").create().save_config({})
    output = tmp_path / "page.html"
    assert write_sweep_report(SweepDirectory(tmp_path / "s"), output=output) == output
    assert "Not evaluated together" in output.read_text()
    with pytest.raises(UsageError, match="no run"):
        write_sweep_report(SweepDirectory(tmp_path / "nothing"))


def test_a_damaged_file_is_named_and_the_rest_is_written(sweep):
    (sweep.path / NAMES[0] / "evaluation/test/summary.json").write_text("{")
    text = write_sweep_report(sweep).read_text()
    assert "summary.json is damaged" in text
    assert rows(text, "Runs")[0][3:] == ["", "", "", "", "", ""]
    assert rows(text, "Runs")[1][3] == "7"

"""The folds of a cross-validation, each on its own cases and all together."""

import csv
import json

import pytest

from segkit.data.layouts import discover
from segkit.errors import DataError, UsageError
from segkit.runs.sweep import SweepDirectory, open_sweep
from segkit.workflows.evaluate import run


def config(path, **keys):
    return {"run": str(path), "subset": "test", "overlays": 0, "trainer": {"accelerator": "cpu"}} | keys


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def folds(nnunet_raw, threshold_run):
    """Three folds of nine cases, by networks of three thresholds."""
    root = nnunet_raw(cases=9, num_classes=2, shape=(18, 20, 16))
    for fold in range(3):
        words = ("data.split.folds=3", f"data.split.fold={fold}")
        path = threshold_run(root, 1.2 + 0.2 * fold, *words, name=f"cv/{fold}-fold={fold}")
    return root, path.parent


def test_the_pooled_table_is_the_union_of_the_folds(folds, capsys):
    root, folder = folds
    summary = run(config(folder, mirror=True))
    for name in (".", "mirrored"):
        pooled = rows(folder / "evaluation" / "test" / name / "per_case.csv")
        apart = [
            rows(fold.path / "evaluation" / "test" / name / "per_case.csv") for fold in SweepDirectory(folder).runs
        ]
        assert sorted(pooled, key=str) == sorted((row for fold in apart for row in fold), key=str)
        assert {row["case_id"] for row in pooled} == {case.case_id for case in discover(root).cases}
    mirrored = json.loads((folder / "evaluation" / "test" / "mirrored" / "summary.json").read_text())
    assert (mirrored["variant"], mirrored["n_cases"], mirrored["label"]) == ("mirrored", 9, "out of fold")
    stored = json.loads((folder / "evaluation" / "test" / "summary.json").read_text())
    assert stored["label"] == "out of fold"
    assert stored["runs"] == [f"{fold}-fold={fold}" for fold in range(3)]
    assert stored["n_cases"] == summary.n_cases == 9
    nnunet = json.loads((folder / "evaluation" / "test" / "nnunet" / "summary.json").read_text())
    assert len(nnunet["metric_per_case"]) == 9
    out = capsys.readouterr().out
    assert "cv, out of fold: 3 runs, 9 cases" in out
    assert "dice +0.0000 [+0.0000, +0.0000] by person" in out.splitlines()[-2]  # a threshold has no left and right


def test_a_run_is_a_run_and_nothing_is_nothing(folds, tmp_path):
    _, folder = folds
    assert len(open_sweep(folder).runs) == 3
    assert open_sweep(folder / "0-fold=0") is None
    assert open_sweep(tmp_path / "nowhere") is None
    with pytest.raises(UsageError, match="no run of that name"):
        run(config(tmp_path / "nowhere"))


def test_a_case_of_two_runs_is_refused(folds, threshold_run):
    root, folder = folds
    threshold_run(root, 1.4, "data.split.folds=3", "data.split.fold=0", name="cv/again")
    with pytest.raises(DataError, match="test case of two runs"):
        run(config(folder))
    assert not (folder / "evaluation").exists()


def test_what_was_scored_in_another_way_is_refused(folds, threshold_run):
    root, folder = folds
    words = ("data.split.folds=3", "data.split.fold=0", "score.aggregate=pooled")
    threshold_run(root, 1.4, *words, name="cv/0-fold=0")
    with pytest.raises(UsageError, match="differ in their scores"):
        run(config(folder))


def test_other_roles_are_not_put_together(folds):
    with pytest.raises(UsageError, match="only the test cases"):
        run(config(folds[1], subset="tuning"))

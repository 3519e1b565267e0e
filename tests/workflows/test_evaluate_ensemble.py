"""Several runs as one: what the mean of threshold networks predicts is known in closed form."""

import csv
import json
import shutil

import nibabel
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit

from segkit.data.layouts import discover
from segkit.data.store import Store
from segkit.errors import DataError, UsageError
from segkit.runs.sweep import SweepDirectory
from segkit.workflows import predict
from segkit.workflows.evaluate import run
from segkit.workflows.loading import load

THRESHOLDS = (2.0, 2.0, 5.0)
"""The balls lie about 2.9 +- 0.3: the mean of the logits, and that of the probabilities, cuts them in two."""


def config(path, **keys):
    runs = [str(one) for one in path] if isinstance(path, list | tuple) else str(path)
    given = {"subset": "test", "overlays": 0, "detail": False, "trainer": {"accelerator": "cpu"}} | keys
    return {"run": runs} | {key: str(value) if key == "output" else value for key, value in given.items()}


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def counts(folder):
    return {row["case_id"]: tuple(int(row[c]) for c in ("tp", "fp", "fn")) for row in rows(folder / "per_case.csv")}


def above(path, threshold, case_ids):
    """Counts of `normalised intensity > threshold`, voxel by voxel."""
    one, found = load(path, accelerator="cpu"), {}
    for case in discover(one.config["data"]["root"]).cases:
        if case.case_id in case_ids:
            prepared = Store(one.prepared_cases).get(case, one.plan)
            guess, truth = np.asarray(prepared.image[0]) > threshold, np.asarray(prepared.native_label) == 1
            assert guess.shape == truth.shape
            found[case.case_id] = tuple(np.count_nonzero(m) for m in (guess & truth, guess & ~truth, ~guess & truth))
    return found


@pytest.fixture
def sweep(nnunet_raw, threshold_run):
    """Three folds of seven people, two more held out from all."""
    root = nnunet_raw(cases=9, num_classes=2, shape=(14, 16, 12))
    for fold, threshold in enumerate(THRESHOLDS):
        words = ("data.split.folds=3", f"data.split.fold={fold}", "data.split.held_out=2")
        path = threshold_run(root, threshold, *words, name=f"cv/{fold}-fold={fold}")
    return root, path.parent


def test_held_out_people_are_scored_by_the_mean_of_the_folds(sweep, tmp_path, capsys):
    _, folder = sweep
    runs = [one.path for one in SweepDirectory(folder).runs]
    held = load(runs[0], accelerator="cpu").roles.held_out
    assert len(held) == 2
    run(config(folder, subset="held_out"))
    out, output = capsys.readouterr().out, folder / "evaluation" / "held_out"
    assert counts(output) == above(runs[0], np.mean(THRESHOLDS), held)
    stored = json.loads((output / "summary.json").read_text())
    assert (stored["label"], stored["subset"], stored["seen_cases"]) == ("held out", "held_out", [])
    assert stored["runs"] == [one.name for one in runs]
    assert [checkpoint["step"] for checkpoint in stored["checkpoints"]] == [2, 2, 2]
    assert (stored["average"], stored["precision"]) == ("logits", ["32-true"] * 3)
    assert "0-fold=0 + 1-fold=1 + 2-fold=2, held out: 2 cases, 2 groups" in out
    # A sweep is the list of its runs.
    run(config(runs, subset="held_out", output=tmp_path / "listed"))
    for name in ("per_case.csv", "summary.json"):
        assert (tmp_path / "listed" / name).read_bytes() == (output / name).read_bytes()
    # Each run by itself.
    run(config(runs[2], subset="held_out"))
    alone = counts(runs[2] / "evaluation" / "held_out")
    assert alone == above(runs[2], THRESHOLDS[2], held) != counts(output)
    # The mean of the probabilities exceeds one half where sum sigmoid(x - t) exceeds one and a half.
    middle = brentq(lambda x: sum(expit(x - t) for t in THRESHOLDS) - len(THRESHOLDS) / 2, 0, 9)
    run(config(runs, subset="held_out", average="probabilities", output=tmp_path / "probabilities"))
    assert counts(tmp_path / "probabilities") == above(runs[0], middle, held) != counts(output)
    assert json.loads((tmp_path / "probabilities" / "summary.json").read_text())["average"] == "probabilities"


def test_a_run_twice_is_that_run(sweep, tmp_path):
    one = SweepDirectory(sweep[1]).runs[0].path
    run(config([one, one], detail=True, output=tmp_path / "twice"))
    run(config([one], detail=True))
    for name in ("per_case.csv", "nnunet/summary.json"):
        there = (one / "evaluation" / "test" / name).read_text()
        assert json_without_paths(tmp_path / "twice" / name) == json_without_paths(one / "evaluation" / "test" / name)
        assert there
    # Of a list of one run the report is made, and no output is asked for.
    assert (one / "report.html").exists()


def json_without_paths(path):
    text = path.read_text()
    if path.suffix != ".json":
        return text
    record = json.loads(text)
    return record | {"metric_per_case": [case["metrics"] for case in record["metric_per_case"]]}


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_masks_are_those_that_predict_writes(nnunet_raw, threshold_run, tmp_path, average):
    """Networks of different plans, each on a grid of its own."""
    root = nnunet_raw(cases=6, num_classes=2, shape=(14, 16, 12))
    fine = threshold_run(root, 2.2, name="fine")
    coarse = threshold_run(root, 3.2, "plan.spacing=[1.3,1.1,1.0]", name="coarse")
    assert load(fine, accelerator="cpu").plan.spacing != load(coarse, accelerator="cpu").plan.spacing
    run(config([fine, coarse], average=average, save_predictions=True, output=tmp_path / "scored"))
    for case_id in load(fine, accelerator="cpu").roles.test:
        image, target = root / f"imagesTr/{case_id}_0000.nii.gz", tmp_path / f"masks-{case_id}"
        keys = {"average": average, "trainer": {"accelerator": "cpu"}}
        (mask,) = predict.run({"run": [str(fine), str(coarse)], "input": str(image), "output": str(target), **keys})
        scored = np.asarray(nibabel.load(tmp_path / "scored" / "predictions" / f"{case_id}.nii.gz").dataobj)
        assert np.count_nonzero(scored)
        np.testing.assert_array_equal(scored, np.asarray(nibabel.load(mask).dataobj))


def refused(path, error=DataError, **keys):
    with pytest.raises(error) as raised:
        run(config(path, **keys))
    assert raised.value.exit_code == (65 if error is DataError else 2)
    return str(raised.value)


def test_what_a_member_has_seen_is_refused_by_model_and_case(sweep, tmp_path, capsys):
    root, folder = sweep
    runs, output = [one.path for one in SweepDirectory(folder).runs], tmp_path / "out"
    roles = [load(one, accelerator="cpu").roles for one in runs]
    held, tested = roles[0].held_out, roles[0].test[0]
    split = runs[1] / "split.json"
    kept = json.loads(split.read_text())
    # Folds have seen each other's test cases.
    assert f"model {runs[0].name}, case {roles[1].test[0]}" in refused(runs[:2], output=output)
    # Selected on it: the roles of fold 0, but for one of its test cases.
    first = roles[0].to_json()
    others = [case for case in first["test"] if case != tested]
    split.write_text(json.dumps(first | {"test": others, "tuning": [*first["tuning"], tested]}))
    text = refused(runs[:2], output=output)
    assert f"model {runs[1].name}, case {tested}" in text
    assert f"1 case, such as {tested} (tuning of {runs[1].name})" in text
    # Trained on it, by name, where the run has not written down its content.
    split.write_text(json.dumps(kept | {"train": [*kept["train"], held[1]], "held_out": [held[0]]}))
    text = refused(folder, subset="held_out")
    assert f"model {runs[1].name}, case {held[1]}" in text
    assert f"1 case, such as {held[1]} (train of {runs[1].name})" in text
    # Marked everywhere, where it is wanted all the same.
    run(config(folder, subset="held_out", output=output, allow_seen=True))
    stored = json.loads((output / "summary.json").read_text())
    assert (stored["label"], stored["seen_cases"], stored["n_cases"]) == ("SEEN CASES", [held[1]], 2)
    assert {row["note"] for row in rows(output / "per_case.csv")} == {"SEEN CASES"}
    assert "*** SEEN CASES: 1 of 2 cases" in capsys.readouterr().out
    # Trained on it by content, under another name.
    split.write_text(json.dumps(kept))
    trained = next(case for case in roles[1].train if case in roles[0].test)
    shutil.copy(root / f"imagesTr/{trained}_0000.nii.gz", root / f"imagesTr/{held[0]}_0000.nii.gz")
    text = refused(folder, subset="held_out")
    assert f"model {runs[1].name}, case {held[0]}" in text
    assert f"{held[0]} (train of {runs[1].name}, as {trained})" in text
    assert not (folder / "evaluation").exists()
    # Training cases are nothing that may be asked for.
    assert f"model {runs[0].name}" in refused(runs, UsageError, subset="train", output=output)


def test_requests_that_cannot_be_met(sweep, threshold_run):
    root, folder = sweep
    runs = [one.path for one in SweepDirectory(folder).runs]
    assert "output=<folder>" in refused(runs, UsageError)
    assert "neither is given" in refused([], UsageError)
    other = threshold_run(root, 2.0, "score.aggregate=pooled", name="pooled")
    assert "differ in their score" in refused([runs[0], other], UsageError, output=folder / "x")
    assert "data.split.held_out" in refused(other, subset="held_out")

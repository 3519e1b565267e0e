import csv
import json
import shutil

import pytest

from segkit.data.layouts import discover
from segkit.data.store import Store
from segkit.errors import DataError, UsageError
from segkit.evaluation import evaluate_case, summarise
from segkit.workflows.evaluate import run
from segkit.workflows.loading import load


def config(path, **keys):
    return {"run": str(path), "subset": "test", "overlays": 0, "trainer": {"accelerator": "cpu"}} | keys


@pytest.fixture
def trained(nnunet_raw, threshold_run):
    root = nnunet_raw(cases=9, num_classes=2, shape=(18, 20, 16))
    return root, threshold_run(root, 1.4)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_test_cases_are_scored_as_evaluate_case_scores_them(trained, capsys):
    root, path = trained
    summary = run(config(path))
    one = load(path, accelerator="cpu")
    cases = [case for case in discover(root).cases if case.case_id in one.roles.test]
    store = Store(path.parent / ".prepared")
    results = [evaluate_case(one.predictor, store.get(case, one.plan), one.settings) for case in cases]
    assert summary.score == summarise(results, one.plan.labels, one.settings).score
    assert 0.9 < summary.score <= 1
    folder = path / "evaluation" / "test"
    assert sorted(p.name for p in folder.iterdir()) == ["nnunet", "per_case.csv", "summary.json"]
    stored = json.loads((folder / "summary.json").read_text())
    assert stored["score"] == summary.score
    assert (stored["label"], stored["seen_cases"], stored["checkpoint"]["step"]) == ("test", [], 2)
    assert [row["case_id"] for row in rows(folder / "per_case.csv")] == sorted(one.roles.test)
    out = capsys.readouterr().out
    assert "ball_a" in out
    assert f"{summary.classes[0].metrics['dice'].mean:.3f}" in out


def test_tuning_is_allowed_and_called_optimistic(trained, capsys):
    run(config(trained[1], subset="tuning"))
    stored = json.loads((trained[1] / "evaluation" / "tuning" / "summary.json").read_text())
    assert stored["label"] == "selection score (optimistic)"
    assert "optimistic" in capsys.readouterr().out


def test_training_cases_are_refused_or_marked(trained, capsys):
    path = trained[1]
    with pytest.raises(UsageError, match="has seen these cases"):
        run(config(path, subset="train"))
    assert not (path / "evaluation").exists()
    run(config(path, subset="train", allow_seen=True))
    folder = path / "evaluation" / "train"
    assert {row["note"] for row in rows(folder / "per_case.csv")} == {"SEEN CASES"}
    assert json.loads((folder / "summary.json").read_text())["label"] == "SEEN CASES"
    assert "SEEN CASES" in capsys.readouterr().out


def test_a_training_image_under_a_test_name_is_found_out(trained):
    root, path = trained
    roles = load(path, accelerator="cpu").roles
    shutil.copy(root / f"imagesTr/{roles.train[0]}_0000.nii.gz", root / f"imagesTr/{roles.test[0]}_0000.nii.gz")
    with pytest.raises(DataError, match=roles.test[0]):
        run(config(path))


def test_a_missing_prediction_target_is_an_error(trained):
    root, path = trained
    gone = load(path, accelerator="cpu").roles.test[0]
    (root / f"labelsTr/{gone}.nii.gz").unlink()
    with pytest.raises(DataError, match=gone):
        run(config(path))


def test_overlays_and_masks(trained):
    output = trained[1].parent / "elsewhere"
    run(config(trained[1], overlays=1, save_predictions=True, output=str(output)))
    tested = load(trained[1], accelerator="cpu").roles.test
    assert sorted(p.name for p in (output / "predictions").iterdir()) == sorted(f"{case}.nii.gz" for case in tested)
    (picture,) = (output / "overlays").iterdir()
    assert picture.suffix == ".png"
    assert picture.stat().st_size > 1000


def test_the_named_checkpoint_is_scored(trained):
    assert run(config(trained[1], checkpoint="step-00000001")).score == 0
    assert run(config(trained[1], checkpoint="last")).score > 0.9
    with pytest.raises(UsageError, match="step-00000002"):
        run(config(trained[1], checkpoint="step-00000009"))


def test_a_run_from_elsewhere_names_no_place_to_prepare_cases_in(trained, tmp_path):
    path = trained[1]
    target = tmp_path / "home-of-somebody"
    stored = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(stored.replace(f"cache: {path.parent / '.prepared'}", f"cache: {target}"))
    assert str(target) in (path / "config.yaml").read_text()
    run(config(path))
    assert not target.exists()


def test_a_class_that_was_not_annotated_in_a_test_case(nnunet_raw, threshold_run):
    """Declared after the training: the next evaluation follows it, without anything being prepared again."""
    root = nnunet_raw(cases=9, num_classes=3, shape=(18, 20, 16))
    path = threshold_run(root, 1.4)
    case = load(path, accelerator="cpu").roles.test[0]
    declared = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps({**declared, "annotated": {case: ["ball_a"]}}))
    first, second = run(config(path)).classes
    assert (first.not_annotated_cases, second.not_annotated_cases) == (0, 1)
    stored = json.loads((path / "evaluation" / "test" / "summary.json").read_text())
    n = stored["n_cases"]
    assert [stored["surface"][name]["nsd"]["n"] for name in ("ball_a", "ball_b")] == [n, n - 1]

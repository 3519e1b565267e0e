"""What follows an evaluation of folds, or a calibration: the page of the folder, and the numbers in MLflow."""

import json
import warnings

import pytest
from tests.calibration_records import write_calibration
from tests.mlflow_stores import doubles, in_store, select, tags

from segkit.configuration.entry import main
from segkit.runs.directory import RunDirectory
from segkit.runs.files import read_json
from segkit.tracking.facts import begin_life
from segkit.workflows import copying
from segkit.workflows.evaluate import run as evaluate
from segkit.workflows.presenting import present

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations within MLflow
    from segkit.tracking.mlflow import MlflowCopy

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and SQLAlchemy's own


@pytest.fixture
def folds(nnunet_raw, threshold_run, make_store):
    """Two folds of six cases, three more held out, each fold with its copy; and the store."""
    store, root = make_store("runs/mlflow.db"), nnunet_raw(cases=9, num_classes=2, shape=(18, 20, 16))
    split = ("data.split.folds=2", "data.split.held_out=3")
    for fold in range(2):
        words = (*split, f"data.split.fold={fold}", f"paths.mlflow={store}")
        path = threshold_run(root, 1.2 + 0.2 * fold, *words, name=f"cv/{fold}-fold={fold}")
        run = RunDirectory(path)
        run.save_status("finished", reason="done")
        MlflowCopy(run, store=store).rebuild()
    return path.parent, store


def evaluated(folder, subset="test", **keys):
    config = {"run": str(folder), "subset": subset, "overlays": 1, "trainer": {"accelerator": "cpu"}}
    summary = evaluate(config | keys)
    present(folder, trust=False)
    return summary


def parent_points(folder, store):
    return {key: value for key, _, value in in_store(store, read_json(folder / "mlflow.json")["run_id"])}


def test_the_scores_of_all_folds_and_of_their_ensemble_reach_page_and_parent_once(folds):
    folder, store = folds
    summary = evaluated(folder)
    points = parent_points(folder, store)
    assert points["out_of_fold/dice/ball_a"] == summary.classes[0].metrics["dice"].mean
    assert points["out_of_fold/dice_n"] == 6
    stored = json.loads((folder / "evaluation/test/summary.json").read_text())
    assert points["out_of_fold/nsd/ball_a"] == stored["surface"]["ball_a"]["nsd"]["mean"]
    assert f"{summary.mean['dice'].mean:.3f}" in (folder / "report.html").read_text()
    parent = read_json(folder / "mlflow.json")["run_id"]
    children = [read_json(fold / "mlflow.json")["run_id"] for fold in sorted(folder.glob("*-fold=*"))]
    assert {tags(store, child)["mlflow.parentRunId"] for child in children} == {parent}
    assert [key for child in children for key, _, _ in in_store(store, child, without=()) if key == "test/dice"]
    # The ensemble joins them.
    summary = evaluated(folder, "held_out")
    before, points = points, parent_points(folder, store)
    assert doubles(store) == []
    assert {key: value for key, value in points.items() if not key.startswith("held_out/")} == before
    assert (points["held_out/dice"], points["held_out/dice_n"]) == (summary.mean["dice"].mean, 3)
    text = (folder / "report.html").read_text()
    section = text.split("<h2>Ensemble of the runs on held-out people</h2>")[1]
    assert f"{summary.mean['dice'].mean:.3f}" in section
    assert section.count("<figcaption>phantom_") == 1
    assert text.count("<figcaption>phantom_") == 3  # the lowest of each fold, and of the held-out people


def test_rows_beside_the_plain_one_reach_page_and_mlflow(folds):
    folder, store = folds
    summary = evaluated(folder, mirror=True, detail=False)
    points = parent_points(folder, store)
    assert points["out_of_fold/dice"] == summary.mean["dice"].mean
    mirrored = read_json(folder / "evaluation/test/mirrored/summary.json")
    assert points["out_of_fold/mirrored/dice"] == mirrored["mean"]["dice"]["mean"]
    assert points["out_of_fold/mirrored/score"] == mirrored["score"]
    sent = read_json(folder / "mlflow.json")["artifacts"]
    assert {f"evaluation/test/mirrored/{name}" for name in ("summary.json", "comparison.json")} <= set(sent)
    for page in (folder / "report.html", folder / "0-fold=0" / "report.html"):
        assert page.read_text().count("<td>mirrored</td>") == 1
    fold = read_json(folder / "0-fold=0" / "mlflow.json")["run_id"]
    assert [value for key, _, value in in_store(store, fold, without=()) if key == "test/mirrored/dice_n"] == [3]


def test_what_did_not_arrive_is_brought_by_sync(folds, caplog, capsys):
    folder, store = folds
    content = store.read_bytes()
    store.write_bytes(b"no database any more" * 100)
    evaluated(folder)
    assert f"segkit.sync run={folder}" in caplog.text
    store.write_bytes(content)
    assert main("sync", [f"paths.runs={folder.parent}"]) == 0
    assert f"{folder}  " in capsys.readouterr().out
    points = parent_points(folder, store)
    assert points["out_of_fold/dice_n"] == 6
    assert main("sync", [f"run={folder}"]) == 0
    assert capsys.readouterr().out.count("up to date") == 3
    assert doubles(store) == []
    assert len(select(store, "SELECT * FROM runs")) == 3


def test_no_server_is_asked_that_only_the_runs_name(folds, monkeypatch, capsys):
    folder, _ = folds
    for fold in folder.glob("*-fold=*"):
        run = RunDirectory(fold)
        begin_life(run, run.load_config(), store="http://elsewhere.example:5000", experiment="e")
    asked = []
    monkeypatch.setattr(copying, "mirror_within", lambda _s, folder, **_: asked.append(folder.name))
    evaluated(folder)
    assert asked == []
    assert f"segkit.sync run={folder}" in capsys.readouterr().out
    present(folder, trust=True)
    assert asked == ["cv"]


def test_a_calibration_reaches_the_page_of_its_run_and_mlflow(folds):
    folder, store = folds
    run = RunDirectory(folder / "0-fold=0")
    record = write_calibration(run.path, [run.name], checkpoint=2)
    present(run.path, trust=False)
    run_id = read_json(run.mlflow)["run_id"]
    points = [(step, value) for key, step, value in in_store(store, run_id) if key == "calibration/temperature"]
    assert points == [(2, record["temperature"])]
    assert {"calibration.json", "calibration_per_case.csv"} <= set(read_json(run.mlflow)["artifacts"])
    assert "Temperature 1.500" in run.report.read_text()


def test_any_other_folder_is_left_alone(tmp_path):
    present(tmp_path, trust=True)
    assert list(tmp_path.iterdir()) == []

"""The digest by which MLflow names the data of a run, and how the scores of an evaluation reach it."""

import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tests.mlflow_stores import doubles, in_store, select

from segkit.configuration import compose
from segkit.data.pipeline import open_dataset
from segkit.runs.directory import RunDirectory
from segkit.tracking.facts import begin_life
from segkit.workflows import copying
from segkit.workflows.copying import _digest
from segkit.workflows.evaluate import run as evaluate


def test_digest_is_of_images_and_masks_and_not_of_names_or_order(nnunet_raw, tmp_path):
    root = nnunet_raw(cases=6)
    config = compose("train", [f"data.root={root}", f"paths.cache={tmp_path / 'cache'}"])
    opened = open_dataset(config)
    train = opened.roles.train
    before = _digest(opened, train)
    assert before == _digest(opened, train[::-1])
    assert before != _digest(opened, train[1:])
    assert before != _digest(opened, opened.roles.tuning)
    case = next(case for case in opened.dataset.cases if case.case_id == train[0])
    mask = nibabel.load(case.label)
    voxels = np.asarray(mask.dataobj).copy()
    voxels[0, 0, 0] = 1
    changed = case.label.with_name("changed.nii.gz")
    nibabel.save(nibabel.Nifti1Image(voxels, mask.affine), changed)
    os.replace(changed, case.label)
    assert before != _digest(opened, train)


@pytest.fixture
def copied_run(nnunet_raw, threshold_run, make_store):
    """A run with a copy in sqlite, and the store."""
    from segkit.tracking.mlflow import MlflowCopy

    store = make_store("runs/mlflow.db")
    path = threshold_run(nnunet_raw(cases=9, num_classes=2, shape=(18, 20, 16)), 1.4, f"paths.mlflow={store}")
    run = RunDirectory(path)
    run.save_status("finished", reason="done", selected="step-00000002", selected_because="best")
    MlflowCopy(run, store=store).rebuild()
    return run, store


def score(run, **keys):
    words = {"run": str(run.path), "subset": "test", "overlays": 0, "trainer": {"accelerator": "cpu"}}
    return evaluate(words | keys)


@pytest.mark.filterwarnings("ignore")  # MLflow's and SQLAlchemy's own
def test_scores_of_an_evaluation_reach_the_copy_once(copied_run):
    run, store = copied_run
    assert not [point for point in in_store(store, without=()) if point[0].startswith("test/")]
    summary = score(run)
    found = {key: value for key, _, value in in_store(store, without=()) if key.startswith("test/")}
    assert found["test/score"] == summary.score
    assert found["test/dice"] == summary.mean["dice"].mean
    assert found["test/dice/ball_a"] == summary.classes[0].metrics["dice"].mean
    stored = json.loads((run.path / "evaluation" / "test" / "summary.json").read_text())
    assert found["test/nsd/ball_a"] == stored["surface"]["ball_a"]["nsd"]["mean"]
    score(run)
    score(run, subset="train", allow_seen=True)
    assert doubles(store) == []
    assert {key: value for key, _, value in in_store(store, without=()) if key.startswith("test/")} == found
    ((where,),) = select(store, "SELECT artifact_uri FROM runs")
    files = Path(where.removeprefix("file://")) / "evaluation"
    assert {path.name for path in (files / "test").iterdir()} == {"nnunet", "per_case.csv", "summary.json"}
    assert "SEEN CASES" in (files / "train" / "per_case.csv").read_text()


def test_an_evaluation_does_not_fail_with_its_store(copied_run, caplog):
    run, store = copied_run
    store.write_bytes(b"no database any more" * 100)
    assert score(run).score > 0.9
    assert "segkit.sync" in caplog.text


def test_an_evaluation_asks_no_server_that_only_the_run_folder_names(copied_run, monkeypatch, capsys):
    run, _ = copied_run
    begin_life(run, run.load_config(), store="http://elsewhere.example:5000", experiment="e")
    asked = []
    monkeypatch.setattr(copying, "mirror_within", lambda *_, **keys: asked.append(keys))
    score(run)
    assert asked == []
    assert "segkit.sync" in capsys.readouterr().out
    score(run, trust=True)
    assert len(asked) == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere.example:5000")
    score(run)
    assert len(asked) == 2


def test_a_run_without_a_copy_gets_none_by_an_evaluation(nnunet_raw, threshold_run, tmp_path):
    run = RunDirectory(threshold_run(nnunet_raw(cases=9, num_classes=2, shape=(18, 20, 16)), 1.4))
    score(run)
    assert not run.mlflow.exists()
    assert not (tmp_path / "runs" / "mlflow.db").exists()

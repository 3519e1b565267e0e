"""The copy in a real sqlite store: one run for life, one point a (key, step), rebuilt at will."""

import os
import socket
import sqlite3
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch

from segkit.runs.checkpoints import write_checkpoint
from segkit.runs.directory import RunDirectory
from segkit.runs.manifest import MODEL, Entry, checkpoint_path
from segkit.tracking.journal import Journal

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations within MLflow
    from segkit.tracking.mlflow import MlflowCopy

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and SQLAlchemy's own
CONFIG = {"trainer": {"max_epochs": 3}, "network": {"_target_": "x.Y", "features": [8, 16]}}


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Making the tables takes seconds: once."""
    root = tmp_path_factory.mktemp("store")
    MlflowCopy(RunDirectory(root / "run").create(), store=root / "mlflow.db", experiment="first")
    return root / "mlflow.db"


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> Path:
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    return tmp_path / "mlflow.db"


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run").create()


def record(run: RunDirectory, steps: range) -> Journal:
    journal = Journal(run.metrics, run.timings)
    for step in steps:
        journal.metrics({"train/loss": 1 / step}, n=2 * step, step=step, epoch=(step + 1) // 2)
        if step % 2 == 0:
            journal.metrics({"val/score": step / 10}, n=2 * step, step=step, epoch=step // 2)
            journal.timing({"time/epoch_s": 1.5}, n=2 * step, step=step, epoch=step // 2)
    return journal


def points(store: Path, run_id: str) -> list[tuple[str, int, float]]:
    with sqlite3.connect(store) as connection:
        query = "SELECT key, step, value FROM metrics WHERE run_uuid = ? ORDER BY key, step"
        return connection.execute(query, (run_id,)).fetchall()


def expected(steps: int) -> list[tuple[str, int, float]]:
    epochs = range(1, steps // 2 + 1)
    return [
        *(("time/epoch_s", e, 1.5) for e in epochs),
        *(("train/loss", s, 1 / s) for s in range(1, steps + 1)),
        *(("val/score", e, 2 * e / 10) for e in epochs),
    ]


def test_second_life_continues_the_same_run_without_doubles(run: RunDirectory, store: Path) -> None:
    first = MlflowCopy(run, store=store)
    first.begin(CONFIG, tags={"host": "a"})
    record(run, range(1, 6))
    assert first.sync() == 9
    record(run, range(6, 7))
    assert first.sync() == 3
    assert first.sync() == 0
    first.end("KILLED", reason="preempted")
    # The second life goes on from step 4: rows are cut and measured again.
    journal = Journal(run.metrics, run.timings)
    journal.cut(8)
    second = MlflowCopy(run, store=store)
    assert second.run_id == first.run_id
    second.begin(CONFIG)
    assert second._client.get_run(second.run_id).info.status == "RUNNING"
    record(run, range(5, 9))
    second.end("FINISHED")
    assert points(store, second.run_id) == expected(8)
    info = second._client.get_run(second.run_id)
    assert info.info.status == "FINISHED"
    assert info.data.tags["segkit.lives"] == "2"
    assert info.data.tags["segkit.ended"] == "finished"


def test_points_carry_the_time_of_the_event(run: RunDirectory, store: Path, monkeypatch) -> None:
    monkeypatch.setattr("segkit.tracking.journal.time.time", lambda: 1_700_000_000.5)
    record(run, range(1, 2))
    copy = MlflowCopy(run, store=store)
    copy.sync()
    assert copy._client.get_metric_history(copy.run_id, "train/loss")[0].timestamp == 1_700_000_000_500


def test_params_are_logged_once_and_drift_is_a_tag(run: RunDirectory, store: Path) -> None:
    MlflowCopy(run, store=store).begin(CONFIG)
    copy = MlflowCopy(run, store=store)
    copy.begin({**CONFIG, "trainer": {"max_epochs": 9}, "new": 1})
    data = copy._client.get_run(copy.run_id).data
    assert data.params == {
        "trainer.max_epochs": "3",
        "network._target_": "x.Y",
        "network.features": "[8, 16]",
    }
    assert '"trainer.max_epochs": "9"' in data.tags["param_drift"]
    assert '"new": "1"' in data.tags["param_drift"]


def test_the_copy_is_rebuilt_from_the_journal(run: RunDirectory, store: Path, empty_store: Path, caplog) -> None:
    first = MlflowCopy(run, store=store)
    first.begin(CONFIG)
    record(run, range(1, 9))
    first.end("FINISHED")
    store.write_bytes(empty_store.read_bytes())  # the store is lost
    again = MlflowCopy(run, store=store)
    assert again.run_id != first.run_id
    assert "a new copy is made" in caplog.text
    again.begin(CONFIG)
    again.end("FINISHED")
    assert points(store, again.run_id) == expected(8)
    assert again._client.get_run(again.run_id).data.params["trainer.max_epochs"] == "3"


def test_more_params_and_points_than_one_request_takes(run: RunDirectory, store: Path) -> None:
    copy = MlflowCopy(run, store=store)
    copy.begin({f"k{i}": i for i in range(250)})
    journal = Journal(run.metrics, run.timings)
    for step in range(1, 1201):
        journal.metrics({"train/loss": float(step)}, n=step, step=step, epoch=1)
    assert copy.sync() == 1200
    assert len(copy._client.get_run(copy.run_id).data.params) == 250
    assert len(points(store, copy.run_id)) == 1200


def test_artifacts_lie_beside_the_store_and_are_sent_when_they_change(
    run: RunDirectory, store: Path, monkeypatch
) -> None:
    copy = MlflowCopy(run, store=store)
    run.save_config(CONFIG)
    (run.overlays / "e1").mkdir()
    (run.overlays / "e1" / "a.png").write_bytes(b"x")
    copy.artifact(run.config)
    copy.artifact(run.overlays)
    names = {f.path for f in copy._client.list_artifacts(copy.run_id, "overlays/e1")}
    assert names == {"overlays/e1/a.png"}
    assert Path(copy._client.download_artifacts(copy.run_id, "config.yaml")).read_text() == run.config.read_text()
    assert (store.parent / "mlartifacts").is_dir()
    sent: list[str] = []
    monkeypatch.setattr(copy._client, "log_artifact", lambda _run, path, _target: sent.append(Path(path).name))
    (run.overlays / "e1" / "a.png").write_bytes(b"y")
    copy.artifact(run.config)
    copy.artifact(run.overlays)
    assert sent == ["a.png"]


def test_checkpoint_is_a_logged_model_without_pickle(run: RunDirectory, store: Path) -> None:
    entry = Entry(step=4, n=8, epoch=2, validated_n=8, score=0.75)
    path = write_checkpoint(
        checkpoint_path(run.checkpoints, 4), entry, model={"w": torch.ones(2)}, optimizer={}, state={}
    )
    run.save_config(CONFIG)
    copy = MlflowCopy(run, store=store)
    model_id = copy.model(path, entry, reason="best", files=[run.config])
    assert copy.model(path, entry, reason="best") == model_id
    assert MlflowCopy(run, store=store).model(path, entry, reason="best") == model_id
    (model,) = copy._client.search_logged_models([copy.experiment_id])
    assert model.model_id == model_id
    assert model.source_run_id == copy.run_id
    assert str(model.status) == "READY" or model.status.name == "READY"
    assert model.params == {"step": "4", "epoch": "2", "samples": "8"}
    assert [(m.key, m.value) for m in model.metrics] == [("selected/score", 0.75)]
    folder = Path(model.artifact_location.removeprefix("file://"))
    files = {p.name: p for p in folder.rglob("*") if p.is_file()}
    assert set(files) == {MODEL, "config.yaml"}
    assert files[MODEL].read_bytes() == (path / MODEL).read_bytes()
    assert not list(run.path.glob(".model-*"))
    outputs = copy._client.get_run(copy.run_id).outputs.model_outputs
    assert [(o.model_id, o.step) for o in outputs] == [(model_id, 2)]


def test_dataset_is_named_once(run: RunDirectory, store: Path) -> None:
    copy = MlflowCopy(run, store=store)
    for _ in range(2):
        copy.dataset("hippocampus", digest="a" * 64, source="/data", context="training")
    copy.dataset("hippocampus", digest="b" * 64, source="/data", context="validation")
    inputs = copy._client.get_run(copy.run_id).inputs.dataset_inputs
    assert sorted(i.tags[0].value for i in inputs) == ["training", "validation"]
    assert {i.dataset.digest for i in inputs} == {"a" * 36, "b" * 36}


def test_child_of_a_sweep(tmp_path: Path, store: Path) -> None:
    parent = MlflowCopy(RunDirectory(tmp_path / "sweep").create(), store=store)
    child = MlflowCopy(RunDirectory(tmp_path / "fold0").create(), store=store, parent=parent.run_id)
    assert child._client.get_run(child.run_id).data.tags["mlflow.parentRunId"] == parent.run_id


def test_nothing_is_made_where_the_process_stands(run: RunDirectory, store: Path, tmp_path: Path, monkeypatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    copy = MlflowCopy(run, store=store, experiment="another/one")
    copy.begin(CONFIG)
    run.save_config(CONFIG)
    copy.artifact(run.config)
    copy.end("FINISHED")
    assert list(here.iterdir()) == []


def test_no_socket_is_opened_and_telemetry_is_off(run: RunDirectory, store: Path, monkeypatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"connects to {arguments[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    copy = MlflowCopy(run, store=store)
    copy.begin(CONFIG)
    record(run, range(1, 3))
    copy.end("FINISHED")
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    from mlflow.telemetry import get_telemetry_client

    assert get_telemetry_client() is None
    assert not [t.name for t in threading.enumerate() if "elemetry" in t.name]


def test_mlflow_is_not_imported_before_it_is_needed() -> None:
    import subprocess

    code = "import sys, segkit.tracking.journal, segkit.tracking.uploader; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_model_carries_the_dice_of_its_weights_and_the_data_they_were_measured_on(
    run: RunDirectory, store: Path
) -> None:
    journal = Journal(run.metrics, run.timings)
    journal.metrics({"val/dice/a": 0.1, "val/loss": 1.0}, n=4, step=2, epoch=1)
    journal.metrics({"val/dice/a": 0.6, "val/dice/b": float("nan"), "val/loss": 0.5}, n=8, step=4, epoch=2)
    entry = Entry(step=4, n=8, epoch=2, validated_n=8, score=0.75)
    path = write_checkpoint(
        checkpoint_path(run.checkpoints, 4), entry, model={"w": torch.ones(2)}, optimizer={}, state={}
    )
    copy = MlflowCopy(run, store=store)
    copy.dataset("hippocampus", digest="t" * 16, source="/data", context="training")
    copy.dataset("hippocampus", digest="v" * 16, source="/data", context="validation")
    copy.model(path, entry, reason="best")
    (model,) = copy._client.search_logged_models([copy.experiment_id])
    assert {m.key: m.value for m in model.metrics} == {"selected/score": 0.75, "selected/dice/a": 0.6}
    assert {(m.dataset_name, m.dataset_digest) for m in model.metrics} == {("hippocampus", "v" * 16)}

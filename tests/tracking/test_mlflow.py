"""The copy in a real sqlite store: one run for life, one point a (key, step), rebuilt at will."""

import os
import socket
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
from tests.mlflow_stores import doubles, in_journal, in_store, params, record, select, status, tags

from segkit.runs.checkpoints import write_checkpoint
from segkit.runs.directory import RunDirectory
from segkit.runs.files import read_json
from segkit.runs.manifest import MODEL, Entry, checkpoint_path
from segkit.tracking.facts import DataFacts, Rewind, begin_life
from segkit.tracking.journal import Journal

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations within MLflow
    from segkit.tracking.mlflow import MlflowCopy

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and SQLAlchemy's own
CONFIG = {"trainer": {"max_epochs": 3}, "network": {"_target_": "x.Y", "features": [8, 16]}}


@pytest.fixture
def store(make_store) -> Path:
    return make_store()


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run").create()
    directory.save_config(CONFIG)
    return directory


def life(run: RunDirectory, store: Path, config=CONFIG, **facts) -> MlflowCopy:
    """What begins a life of a run."""
    begin_life(run, config, **facts)
    copy = MlflowCopy(run, store=store)
    copy.begin()
    return copy


def checkpoint(run: RunDirectory, entry: Entry) -> Path:
    path = checkpoint_path(run.checkpoints, entry.step)
    write_checkpoint(path, entry, model={"w": torch.ones(2)}, optimizer={}, state={})
    run.save_status("finished", reason="done", selected=path.name, selected_because="best")
    return path


def test_second_life_continues_the_same_run_without_doubles(run: RunDirectory, store: Path) -> None:
    first = life(run, store, tags={"host": "a"})
    record(run, range(1, 6))
    assert first.sync() == 9
    record(run, range(6, 7))
    assert first.sync() == 3
    assert first.sync() == 0
    first.finish("KILLED", reason="preempted")
    assert status(store, first.run_id) == "KILLED"
    # The second life goes on from step 4: rows are cut and measured again.
    Journal(run.metrics, run.timings).cut(8)
    second = life(run, store)
    assert second.run_id == first.run_id
    assert status(store, second.run_id) == "RUNNING"
    record(run, range(5, 9))
    second.finish("FINISHED")
    assert in_store(store) == in_journal(run)
    assert len(in_journal(run)) == 16
    assert doubles(store) == []
    assert status(store, second.run_id) == "FINISHED"
    assert tags(store, second.run_id)["segkit.lives"] == "2"
    assert tags(store, second.run_id)["segkit.ended"] == "finished"
    assert len(select(store, "SELECT * FROM runs")) == 1


def test_points_carry_the_time_of_the_event(run: RunDirectory, store: Path, monkeypatch) -> None:
    now = 1_700_000_000.5
    monkeypatch.setattr("segkit.tracking.journal.time.time", lambda: now)
    journal = record(run, range(1, 2))
    now += 60
    journal.metrics({"val/score": 1.0}, n=2, step=1, epoch=1)  # of the same n: the time stays, so a point stays equal
    copy = MlflowCopy(run, store=store)
    copy.sync()
    assert select(store, "SELECT DISTINCT timestamp FROM metrics") == [(1_700_000_000_500,)]
    assert select(store, "SELECT start_time FROM runs") == [(1_700_000_000_500,)]


def test_params_are_logged_once_and_drift_is_a_tag(run: RunDirectory, store: Path, make_store) -> None:
    life(run, store)
    copy = life(run, store, {**CONFIG, "trainer": {"max_epochs": 9}, "new": 1})
    first = {"trainer.max_epochs": "3", "network._target_": "x.Y", "network.features": "[8, 16]"}
    assert params(store, copy.run_id) == first
    assert '"trainer.max_epochs": "9"' in tags(store, copy.run_id)["param_drift"]
    assert '"new": "1"' in tags(store, copy.run_id)["param_drift"]
    # Another, empty store is told the same.
    empty = make_store("empty.db")
    other = MlflowCopy(run, store=empty)
    other.rebuild()
    assert params(empty, other.run_id) == first
    assert tags(empty, other.run_id)["param_drift"] == tags(store, copy.run_id)["param_drift"]


def test_params_that_half_arrived_are_completed_and_are_no_drift(run: RunDirectory, store: Path, monkeypatch) -> None:
    begin_life(run, {f"k{i}": i for i in range(150)})
    copy = MlflowCopy(run, store=store)
    log_batch, calls = copy._client.log_batch, []

    def once(*arguments, **keys):
        calls.append(keys)
        if len(calls) == 2:
            raise ConnectionError("down")
        return log_batch(*arguments, **keys)

    monkeypatch.setattr(copy._client, "log_batch", once)
    with pytest.raises(ConnectionError):
        copy.begin()
    assert len(params(store, copy.run_id)) == 100
    copy.begin()
    assert len(params(store, copy.run_id)) == 150
    assert "param_drift" not in tags(store, copy.run_id)


def test_the_copy_is_rebuilt_from_the_folder(run: RunDirectory, store: Path, make_store, caplog) -> None:
    first = life(run, store, tags={"host": "a"}, data=[DataFacts("d", "a" * 64, "/data", "training")])
    record(run, range(1, 9))
    checkpoint(run, Entry(step=8, n=16, epoch=4, validated_n=16, score=0.75))
    first.finish("FINISHED", reason="done")
    make_store()  # the store is lost
    again = MlflowCopy(run, store=store)
    assert again.run_id != first.run_id
    assert "a new copy is made" in caplog.text
    assert again.rebuild() == 16
    assert in_store(store) == in_journal(run)
    assert params(store, again.run_id)["trainer.max_epochs"] == "3"
    assert tags(store, again.run_id)["host"] == "a"
    assert tags(store, again.run_id)["segkit.ended"] == "done"
    assert status(store, again.run_id) == "FINISHED"
    assert again._client.get_run(again.run_id).inputs.dataset_inputs[0].dataset.digest == "a" * 36
    assert {f.path for f in again._client.list_artifacts(again.run_id)} == {"config.yaml"}
    assert len(again._client.search_logged_models([again.experiment_id])) == 1


def test_two_stores_keep_their_own_run_of_it(run: RunDirectory, store: Path, make_store) -> None:
    record(run, range(1, 3))
    one, other = life(run, store), MlflowCopy(run, store=make_store("other.db"))
    other.rebuild()
    assert MlflowCopy(run, store=store).run_id == one.run_id
    assert MlflowCopy(run, store=store.with_name("other.db")).run_id == other.run_id
    assert MlflowCopy(run, store=store).rebuild() == 4
    assert in_store(store) == in_store(store.with_name("other.db")) == in_journal(run)
    assert read_json(run.mlflow)["run_id"] == one.run_id


def test_a_life_killed_before_it_wrote_the_id_leaves_no_second_run(run: RunDirectory, store: Path) -> None:
    first = life(run, store)
    run.mlflow.unlink()
    assert MlflowCopy(run, store=store).run_id == first.run_id
    run.mlflow.write_text('{"run_id": 3')
    assert MlflowCopy(run, store=store).run_id == first.run_id


def test_points_that_arrived_without_an_answer_are_not_sent_again(run: RunDirectory, store: Path, monkeypatch) -> None:
    copy = life(run, store)
    record(run, range(1, 5))
    log_batch = copy._client.log_batch

    def lost(*arguments, **keys):
        log_batch(*arguments, **keys)
        raise ConnectionError("the answer is lost")

    with monkeypatch.context() as patched:
        patched.setattr(copy._client, "log_batch", lost)
        with pytest.raises(ConnectionError):
            copy.sync()
    assert copy.sync() == 0
    assert in_store(store) == in_journal(run)
    assert doubles(store) == []


def test_after_a_rewind_behind_what_was_sent_a_fresh_run_goes_on_and_names_the_old(
    run: RunDirectory, store: Path
) -> None:
    first = life(run, store)
    journal = record(run, range(1, 9))
    first.finish("FINISHED")
    journal.cut(8)
    second = life(run, store, rewind=Rewind(step=4, epoch=2, n=8))
    record(run, range(5, 7), factor=3.0)
    second.finish("FINISHED")
    assert second.run_id != first.run_id
    assert in_store(store, second.run_id) == in_journal(run)
    assert tags(store, second.run_id)["segkit.rewound"] == "to step 4 (epoch 2)"
    assert tags(store, second.run_id)["segkit.supersedes"] == first.run_id
    assert tags(store, first.run_id)["segkit.superseded_by"] == second.run_id
    assert status(store, first.run_id) == "KILLED"
    assert MlflowCopy(run, store=store).rebuild() == 0  # a third look makes no third run
    assert len(select(store, "SELECT * FROM runs")) == 2


def test_a_rewind_to_before_anything_was_sent_keeps_the_run(run: RunDirectory, store: Path) -> None:
    first = life(run, store)
    record(run, range(1, 5))
    first.sync()
    second = life(run, store, rewind=Rewind(step=4, epoch=2, n=8))
    assert second.run_id == first.run_id
    assert len(select(store, "SELECT * FROM runs")) == 1


def test_a_run_deleted_in_mlflow_gets_a_new_copy(run: RunDirectory, store: Path) -> None:
    first = life(run, store)
    first._client.delete_run(first.run_id)
    record(run, range(1, 3))
    again = MlflowCopy(run, store=store)
    assert again.run_id != first.run_id
    assert again.rebuild() == 4


def test_more_params_and_points_than_one_request_takes(run: RunDirectory, store: Path) -> None:
    copy = life(run, store, {f"k{i}": i for i in range(250)})
    journal = Journal(run.metrics, run.timings)
    for step in range(1, 1201):
        journal.metrics({"train/loss": float(step)}, n=step, step=step, epoch=1)
    assert copy.sync() == 1200
    assert len(params(store, copy.run_id)) == 250
    assert len(in_store(store)) == 1200


def test_artifacts_lie_beside_the_store_and_are_sent_when_they_change(
    run: RunDirectory, store: Path, monkeypatch
) -> None:
    copy = MlflowCopy(run, store=store)
    (run.overlays / "e1").mkdir()
    (run.overlays / "e1" / "a.png").write_bytes(b"x")
    (run.overlays / ".b.png.tmp").write_bytes(b"half")
    copy.finish("FINISHED")
    assert {f.path for f in copy._client.list_artifacts(copy.run_id, "overlays")} == {"overlays/e1"}
    assert {f.path for f in copy._client.list_artifacts(copy.run_id, "overlays/e1")} == {"overlays/e1/a.png"}
    assert Path(copy._client.download_artifacts(copy.run_id, "config.yaml")).read_text() == run.config.read_text()
    assert (store.parent / "mlartifacts").is_dir()
    again, sent = MlflowCopy(run, store=store), []
    monkeypatch.setattr(
        again._client, "log_artifact", lambda _run, path, target: sent.append((Path(path).name, target))
    )
    (run.overlays / "e1" / "a.png").write_bytes(b"y")
    again.finish("FINISHED")
    assert sent == [("a.png", "overlays/e1")]


def test_checkpoint_is_a_logged_model_without_pickle(run: RunDirectory, store: Path) -> None:
    path = checkpoint(run, Entry(step=4, n=8, epoch=2, validated_n=8, score=0.75))
    copy = life(run, store)
    copy.finish("FINISHED")
    MlflowCopy(run, store=store).finish("FINISHED")
    (model,) = copy._client.search_logged_models([copy.experiment_id])
    assert read_json(run.mlflow)["models"] == {"4": model.model_id}
    assert model.source_run_id == copy.run_id
    assert model.status.name == "READY"
    assert model.params == {"step": "4", "epoch": "2", "samples": "8"}
    assert model.tags["segkit.reason"] == "best"
    assert [(m.key, m.value) for m in model.metrics] == [("selected/score", 0.75)]
    folder = Path(model.artifact_location.removeprefix("file://"))
    files = {p.name: p for p in folder.rglob("*") if p.is_file()}
    assert set(files) == {MODEL, "config.yaml"}
    assert files[MODEL].read_bytes() == (path / MODEL).read_bytes()
    outputs = copy._client.get_run(copy.run_id).outputs.model_outputs
    assert [(o.model_id, o.step) for o in outputs] == [(model.model_id, 2)]


def test_a_model_that_half_arrived_is_completed(run: RunDirectory, store: Path, monkeypatch) -> None:
    checkpoint(run, Entry(step=4, n=8, epoch=2, validated_n=8, score=0.75))
    copy = life(run, store)

    def down(*_, **__):
        raise ConnectionError("down")

    with monkeypatch.context() as patched:
        patched.setattr(copy._client, "finalize_logged_model", down)
        with pytest.raises(ConnectionError):
            copy.finish("FINISHED")
    assert "models" not in read_json(run.mlflow) or not read_json(run.mlflow)["models"]
    MlflowCopy(run, store=store).finish("FINISHED")
    (model,) = copy._client.search_logged_models([copy.experiment_id])
    assert model.status.name == "READY"
    assert len(copy._client.get_run(copy.run_id).outputs.model_outputs) == 1
    assert doubles(store) == []


def test_model_carries_the_dice_of_its_weights_and_the_data_they_were_measured_on(
    run: RunDirectory, store: Path
) -> None:
    journal = Journal(run.metrics, run.timings)
    journal.metrics({"val/dice/a": 0.1, "val/loss": 1.0}, n=4, step=2, epoch=1)
    journal.metrics({"val/dice/a": 0.6, "val/dice/b": float("nan"), "val/loss": 0.5}, n=8, step=4, epoch=2)
    checkpoint(run, Entry(step=4, n=8, epoch=2, validated_n=8, score=0.75))
    names = {"training": "t" * 16, "validation": "v" * 16}
    copy = life(run, store, data=[DataFacts("hippocampus", d, "/data", context) for context, d in names.items()])
    copy.finish("FINISHED")
    (model,) = copy._client.search_logged_models([copy.experiment_id])
    assert {m.key: m.value for m in model.metrics} == {"selected/score": 0.75, "selected/dice/a": 0.6}
    assert {(m.dataset_name, m.dataset_digest) for m in model.metrics} == {("hippocampus", "v" * 16)}


def test_data_are_named_once_a_context(run: RunDirectory, store: Path) -> None:
    for _ in range(2):
        data = [
            DataFacts("hippocampus", "a" * 64, "/data", "training"),
            DataFacts("hippocampus", "b", "/d", "validation"),
        ]
        copy = life(run, store, data=data)
    inputs = copy._client.get_run(copy.run_id).inputs.dataset_inputs
    assert sorted((i.tags[0].value, i.dataset.digest) for i in inputs) == [("training", "a" * 36), ("validation", "b")]


def test_scores_of_the_test_cases_are_sent_once(run: RunDirectory, store: Path) -> None:
    import json

    folder = run.path / "evaluation" / "test"
    folder.mkdir(parents=True)
    summary = {"label": "test", "score": 0.5, "mean": {"dice": {"mean": 0.6}}, "checkpoint": {"epoch": 3}}
    summary["classes"] = {"a": {"dice": {"mean": 0.7}, "iou": {"mean": None}, "healthy_cases": 2}}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "per_case.csv").write_text("case_id\n")
    for _ in range(2):
        copy = MlflowCopy(run, store=store)
        copy.rebuild()
    assert in_store(store, without=()) == [("test/dice", 3, 0.6), ("test/dice/a", 3, 0.7), ("test/score", 3, 0.5)]
    names = {f.path for f in copy._client.list_artifacts(copy.run_id, "evaluation/test")}
    assert names == {"evaluation/test/summary.json", "evaluation/test/per_case.csv"}
    (folder / "summary.json").write_text(json.dumps({**summary, "label": "SEEN CASES", "score": 0.9}))
    MlflowCopy(run, store=store).rebuild()
    assert len(in_store(store, without=())) == 3


def test_nothing_is_made_where_the_process_stands(run: RunDirectory, store: Path, tmp_path: Path, monkeypatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    begin_life(run, CONFIG)
    copy = MlflowCopy(run, store=store, experiment="another/one")
    copy.begin()
    copy.finish("FINISHED")
    assert list(here.iterdir()) == []


def test_no_socket_is_opened_and_telemetry_is_off(run: RunDirectory, store: Path, monkeypatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"connects to {arguments[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    copy = life(run, store)
    record(run, range(1, 3))
    copy.finish("FINISHED")
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    from mlflow.telemetry import get_telemetry_client

    assert get_telemetry_client() is None
    assert not [t.name for t in threading.enumerate() if "elemetry" in t.name]


def test_mlflow_is_not_imported_before_it_is_needed() -> None:
    modules = "segkit.tracking.journal, segkit.tracking.uploader, segkit.tracking.record, segkit.tracking.facts"
    code = f"import sys, {modules}; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

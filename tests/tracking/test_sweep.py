"""Jobs of a sweep lie below one MLflow run, which holds what was found of them together."""

import warnings
from pathlib import Path

import pytest
from tests.calibration_records import write_calibration
from tests.evaluation_tables import write_tables
from tests.mlflow_stores import doubles, in_store, select, status, tags

from segkit.errors import RunInUseError, StorageError
from segkit.runs.directory import RunDirectory
from segkit.runs.files import read_json, write_yaml
from segkit.runs.sweep import SweepDirectory
from segkit.tracking.record import keep_alone

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations within MLflow
    from segkit.tracking import mirror as mirroring
    from segkit.tracking.mirror import mirror
    from segkit.tracking.mlflow import MlflowCopy
    from segkit.tracking.sweep import open_sweep_copy

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def sweep(tmp_path):
    folder = tmp_path / "runs" / "s"
    folder.mkdir(parents=True)
    write_yaml(folder / "multirun.yaml", {"hydra": {"overrides": {"task": ["data.split.fold=0,1", "run_name=s"]}}})
    return folder


def test_every_job_has_the_same_parent_whose_status_follows_theirs(sweep, make_store):
    store = make_store()
    jobs = [RunDirectory(sweep / f"{number}-fold={number}").create() for number in range(2)]
    copies = []
    for job in jobs:
        job.save_status("running")
        with job.lock():
            copy = MlflowCopy(job, store=store)
            copy.begin()
            parent = tags(store, copy.run_id)["mlflow.parentRunId"]
            assert status(store, parent) == "RUNNING"
        job.save_status("finished" if job is jobs[0] else "failed")
        copy.rebuild()
        copies.append(copy)
    assert read_json(sweep / "mlflow.json")["run_id"] == parent
    assert {tags(store, copy.run_id)["mlflow.parentRunId"] for copy in copies} == {parent}
    assert status(store, parent) == "FAILED"
    assert tags(store, parent)["segkit.sweep"] == "data.split.fold=0,1 run_name=s"
    assert tags(store, parent)["mlflow.runName"] == "s"
    # The failed one is started again and ends well.
    jobs[1].save_status("finished")
    MlflowCopy(jobs[1], store=store).rebuild()
    assert status(store, parent) == "FINISHED"
    assert len(select(store, "SELECT * FROM runs")) == 3


def test_a_run_beside_others_has_no_parent(tmp_path, make_store):
    copy = MlflowCopy(RunDirectory(tmp_path / "runs" / "a").create(), store=make_store())
    assert "mlflow.parentRunId" not in tags(tmp_path / "mlflow.db", copy.run_id)


def test_in_an_empty_store_the_parent_is_made_again(sweep, make_store):
    job = RunDirectory(sweep / "0-fold=0").create()
    MlflowCopy(job, store=make_store("one.db")).rebuild()
    two = make_store("two.db")
    copy = MlflowCopy(job, store=two)
    assert (tags(two, copy.run_id)["mlflow.parentRunId"],) in select(two, "SELECT run_uuid FROM runs")


FOLDS = ("0-fold=0", "1-fold=1")
DICE = {f"c{k}": (0.5 + k / 20, 0.9) for k in range(8)}


def evaluated(folder, *, label="out of fold"):
    """Two finished folds, and the tables of both together."""
    for name in FOLDS:
        run = RunDirectory(folder / name).create()
        run.save_config({})
        run.save_status("finished")
    seen = ["c0"] if label == "SEEN CASES" else []
    table = write_tables(folder / "evaluation" / "test", DICE, label=label, runs=list(FOLDS), seen_cases=seen)
    (table / "nnunet").mkdir()
    (table / "nnunet" / "summary.json").write_text("{}")
    return SweepDirectory(folder)


def artifacts(store, run_id):
    ((where,),) = select(store, "SELECT artifact_uri FROM runs WHERE run_uuid = ?", run_id)
    root = Path(where.removeprefix("file://"))
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_scores_of_all_folds_and_their_files_reach_the_parent_once(sweep, make_store):
    store, folds = make_store(), evaluated(sweep)
    stored = read_json(folds.evaluation / "test" / "summary.json")
    done = mirror(folds, store=store, experiment="e")
    points = {key: value for key, step, value in in_store(store, done.run_id) if step == 0}
    assert len(points) == done.sent
    assert points["out_of_fold/score"] == stored["score"]
    assert points["out_of_fold/dice/front"] == stored["classes"]["front"]["dice"]["mean"]
    limits = [points["out_of_fold/dice_low/front"], points["out_of_fold/dice_high/front"]]
    assert limits == stored["classes"]["front"]["dice"]["interval"]
    assert points["out_of_fold/dice_n/front"] == 8
    assert {key: tags(store, done.run_id)[f"segkit.{key}"] for key in ("label", "cases", "people")} == {
        "label": "out of fold",
        "cases": "8",
        "people": "8",
    }
    files = ["evaluation/test/nnunet/summary.json", "evaluation/test/per_case.csv", "evaluation/test/summary.json"]
    assert artifacts(store, done.run_id) == [*files, "multirun.yaml"]
    assert (done.status, status(store, done.run_id)) == ("FINISHED", "FINISHED")
    ((ended,),) = select(store, "SELECT end_time FROM runs WHERE run_uuid = ?", done.run_id)
    assert ended == max(int((sweep / name / "STATUS.json").stat().st_mtime * 1000) for name in FOLDS)
    again = mirror(folds, store=store, experiment="e")
    assert (again.sent, again.run_id) == (0, done.run_id)
    assert doubles(store) == []
    assert len(select(store, "SELECT * FROM runs")) == 1


def test_what_is_found_later_follows(sweep, make_store):
    store, folds = make_store(), evaluated(sweep)
    first = mirror(folds, store=store, experiment="e")
    write_tables(sweep / "evaluation" / "held_out", {"x": (0.25, 0.75)}, label="test")
    write_calibration(sweep, FOLDS)
    (sweep / "report.html").write_text("report")
    second = mirror(folds, store=store, experiment="e")
    points = {key: value for key, _, value in in_store(store, first.run_id)}
    assert second.run_id == first.run_id
    assert second.sent == len(points) - first.sent
    assert (points["held_out/dice"], points["calibration/temperature"]) == (0.5, 1.5)
    assert {"report.html", "calibration.json", "evaluation/held_out/summary.json"} <= set(
        artifacts(store, first.run_id)
    )


def test_scores_of_seen_cases_go_as_files_only(sweep, make_store):
    store, folds = make_store(), evaluated(sweep, label="SEEN CASES")
    done = mirror(folds, store=store, experiment="e")
    assert done.sent == 0
    assert in_store(store, done.run_id) == []
    assert tags(store, done.run_id)["segkit.label"] == "SEEN CASES"
    assert "evaluation/test/per_case.csv" in artifacts(store, done.run_id)


def test_a_parent_whose_id_was_not_written_down_is_found_again(sweep, make_store):
    """A process that was killed after it had made the run, before it could write mlflow.json."""
    store, folds = make_store(), evaluated(sweep)
    first = mirror(folds, store=store, experiment="e").run_id
    folds.mlflow.unlink()
    assert mirror(folds, store=store, experiment="e").run_id == first
    assert doubles(store) == []


def test_a_store_that_fails_half_way_gets_the_rest_the_next_time(sweep, make_store, monkeypatch):
    store, folds = make_store(), evaluated(sweep)

    def down(*_, **__):
        raise OSError("server is down")

    with monkeypatch.context() as patch:
        patch.setattr("segkit.tracking.sweep.send_files", down)
        with pytest.raises(StorageError, match="sync"):
            mirror(folds, store=store, experiment="e")
    sent = len(in_store(store))
    assert sent > 0
    assert read_json(folds.mlflow)["complete"] == ""
    assert mirror(folds, store=store, experiment="e").sent == 0
    assert len(in_store(store)) == sent
    assert doubles(store) == []
    assert read_json(folds.mlflow)["complete"] != ""


def test_folds_that_were_trained_one_by_one_get_a_parent_when_they_are_evaluated(tmp_path, make_store):
    store, folder = make_store(), tmp_path / "runs" / "cv"
    runs = [RunDirectory(folder / name).create() for name in (*FOLDS, "another")]
    copies = [MlflowCopy(run, store=store, experiment="e").run_id for run in runs]
    assert not any("mlflow.parentRunId" in tags(store, copy) for copy in copies)
    parent = mirror(evaluated(folder), store=store, experiment="e").run_id
    assert [tags(store, copy).get("mlflow.parentRunId") for copy in copies] == [parent, parent, None]
    # Made again elsewhere, they have it from the start.
    other = make_store("other.db")
    copy = MlflowCopy(runs[0], store=other, experiment="e")
    assert tags(other, copy.run_id)["mlflow.parentRunId"] == copy.parent.run_id


def test_who_copies_a_sweep_waits_for_the_jobs(sweep, make_store, monkeypatch):
    folds = evaluated(sweep)
    monkeypatch.setattr(mirroring, "WAIT_S", 0.2)
    with keep_alone(sweep), pytest.raises(RunInUseError):
        mirror(folds, store=make_store(), experiment="e")
    assert not folds.mlflow.exists()


def test_a_parent_that_was_deleted_is_made_again_and_has_its_children(sweep, make_store):
    store, folds = make_store(), evaluated(sweep)
    child = MlflowCopy(folds.runs[0], store=store, experiment="e")
    child.rebuild()
    child._client.delete_run(child.parent.run_id)
    with keep_alone(sweep):
        copy = open_sweep_copy(folds, store=store, experiment="e")
        copy.rebuild()
    assert copy.run_id != child.parent.run_id
    assert tags(store, child.run_id)["mlflow.parentRunId"] == copy.run_id

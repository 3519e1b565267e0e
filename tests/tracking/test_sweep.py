"""Jobs of a sweep lie below one MLflow run."""

import warnings

import pytest
from tests.mlflow_stores import select, status, tags

from segkit.runs.directory import RunDirectory
from segkit.runs.files import read_json, write_yaml

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations within MLflow
    from segkit.tracking.mlflow import MlflowCopy

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

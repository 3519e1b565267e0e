"""R11. One training is one MLflow run for life: however often it is interrupted and resumed, each (key, step) has
exactly one point and none is missing, the params are those of the first life and what changed is the tag
`param_drift`, and the status says how it stands.
"""

import json
from pathlib import Path

import pytest
from tests.mlflow_stores import doubles, in_journal, in_store, params, select, status, tags

from segkit.configuration import compose
from segkit.configuration.entry import main
from segkit.errors import Preempted
from segkit.runs.directory import RunDirectory
from segkit.workflows.sync import run as sync
from segkit.workflows.train import run as train

pytestmark = [
    pytest.mark.alone,
    pytest.mark.filterwarnings("ignore"),  # MLflow's and SQLAlchemy's own
]
NOT_DETERMINISTIC = ("selected/", "time/", "memory/", "test/")


def tracked(name: str, store) -> list[str]:
    """Overrides of a run with a point at each step, in a store."""
    return [name, "tracking=mlflow", f"paths.mlflow={store}", "trainer.log_every_n_steps=1"]


def test_interrupted_and_resumed_is_the_uninterrupted_table(run_config, make_store, stop_after, size):
    whole, store = make_store("whole.db"), make_store("resumed.db")
    train(run_config(*tracked("whole", whole)))
    for step in size((4,), (1, 2, 3, 4, 5)):
        with pytest.raises(Preempted):
            train(run_config(*tracked("resumed", store)), callbacks=[stop_after(step)])
        ((run_id,),) = select(store, "SELECT run_uuid FROM runs WHERE name = 'resumed'")
        assert status(store, run_id) == "KILLED"
    train(run_config(*tracked("resumed", store), "checkpoint.keep=3"))
    ((run_id,),) = select(store, "SELECT run_uuid FROM runs WHERE name = 'resumed'")
    assert in_store(store, run_id, without=NOT_DETERMINISTIC) == in_store(whole, without=NOT_DETERMINISTIC)
    assert in_store(store, run_id) == in_journal(folder(run_config, "resumed"))
    assert {key for key, _, _ in in_store(store, run_id)} >= {"train/loss", "val/score", "lr"}
    assert doubles(store) == []
    said = tags(store, run_id)
    assert said["segkit.lives"] == str(size(2, 6))
    assert json.loads(said["param_drift"])["checkpoint.keep"] == "3"
    assert params(store, run_id)["checkpoint.keep"] == "2"
    assert status(store, run_id) == "FINISHED"


def folder(run_config, name) -> RunDirectory:
    return RunDirectory(Path(run_config(name)["paths"]["runs"]) / name)


@pytest.mark.slow
def test_a_rewound_run_is_told_and_its_table_is_its_journal(run_config, make_store):
    store = make_store()
    words = tracked("back", store)
    run = train(run_config(*words, "scheduler=constant", "optimizer.lr=1e-3")).directory
    ((first,),) = select(store, "SELECT run_uuid FROM runs")
    before = in_store(store, first)
    train(run_config(*words, "scheduler=constant", "optimizer.lr=5e-4", "resume=step-00000003"))
    ((second,),) = select(store, "SELECT run_uuid FROM runs WHERE run_uuid != ?", first)
    assert in_store(store, second) == in_journal(run)
    assert in_store(store, first) == before
    assert ("lr", 6, 5e-4) in in_store(store, second)
    assert tags(store, second)["segkit.rewound"] == "to step 3 (epoch 1)"
    assert tags(store, second)["segkit.supersedes"] == first
    assert tags(store, first)["segkit.superseded_by"] == second
    assert (status(store, first), status(store, second)) == ("KILLED", "FINISHED")


def test_a_run_that_was_killed_is_closed_by_sync_and_opened_by_the_next_life(run_config, make_store, stop_after):
    store = make_store()
    words = tracked("killed", store)
    with pytest.raises(Preempted):
        train(run_config(*words), callbacks=[stop_after(4)])
    run = folder(run_config, "killed")
    run.save_status("running")  # what a SIGKILL leaves
    sync(compose("sync", [f"run={run.path}"]))
    ((run_id,),) = select(store, "SELECT run_uuid FROM runs")
    assert status(store, run_id) == "KILLED"
    assert tags(store, run_id)["segkit.ended"] == "left without an end"
    train(run_config(*words))
    assert select(store, "SELECT run_uuid FROM runs") == [(run_id,)]
    assert status(store, run_id) == "FINISHED"
    assert in_store(store, run_id) == in_journal(run)
    assert doubles(store) == []


@pytest.mark.slow
def test_the_folds_of_a_sweep_are_children_of_one_run(run_config, make_store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store, config = make_store(), run_config("any")
    words = ["debug=fast", "tracking=mlflow", f"paths.mlflow={store}", f"data.root={config['data']['root']}"]
    words += ["trainer.max_epochs=1", "trainer.steps_per_epoch=1", "trainer.precision=32-true", "trainer.threads=1"]
    words += ["trainer.accelerator=cpu", "overlays.cases=0", "plan=tiny", "data.split.folds=3"]
    assert main("train", ["-m", "data.split.fold=0,1", "run_name=cv", *words]) == 0
    ((parent,),) = select(store, "SELECT run_uuid FROM runs WHERE name = 'cv'")
    children = select(store, "SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId' AND value = ?", parent)
    assert len(children) == 2
    assert {tags(store, child)["segkit.fold"] for (child,) in children} == {"0", "1"}
    assert {status(store, one) for (one,) in [*children, (parent,)]} == {"FINISHED"}
    assert "data.split.fold=0,1" in tags(store, parent)["segkit.sweep"]

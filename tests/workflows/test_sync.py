"""`segkit sync`: exactly what is in the folders, no more than once, and no run is disturbed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.mlflow_stores import doubles, in_journal, in_store, record, select, status

from segkit.configuration.entry import main
from segkit.runs.directory import RunDirectory
from segkit.runs.files import read_json
from segkit.tracking.facts import begin_life
from segkit.tracking.record import keep_alone

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and SQLAlchemy's own


@pytest.fixture
def store(make_store) -> Path:
    return make_store()


@pytest.fixture
def make_run(tmp_path: Path, store: Path):
    def make(name: str, *, tracking: str = "mlflow") -> RunDirectory:
        run = RunDirectory(tmp_path / "runs" / name).create()
        config = {"tracking": {"name": tracking, "uri": None, "experiment": "e"}, "paths": {"mlflow": str(store)}}
        run.save_config(config)
        begin_life(run, config)
        record(run, range(1, 5))
        run.save_status("finished", reason="done")
        return run

    return make


def sync(*words: object) -> int:
    return main("sync", [str(word) for word in words])


def test_one_run_is_sent_once_and_said(make_run, store, capsys):
    run = make_run("a")
    assert sync(f"run={run.path}") == 0
    out = capsys.readouterr().out
    assert f"{run.path}  8 points sent  FINISHED  sqlite:///{store}" in out
    assert in_store(store) == in_journal(run)
    assert len(in_journal(run)) == 8
    assert sync(f"run={run.path}") == 0
    assert "0 points sent" in capsys.readouterr().out
    record(run, range(5, 7))
    assert sync(f"run={run.path}") == 0
    assert "4 points sent" in capsys.readouterr().out
    assert in_store(store) == in_journal(run)
    assert doubles(store) == []
    assert select(store, "SELECT name FROM experiments WHERE name = 'e'") == [("e",)]


def test_all_runs_that_are_not_complete(make_run, store, tmp_path, capsys):
    runs = [make_run("a"), make_run("sweep/0-seed=1"), make_run("off", tracking="none"), make_run("busy")]
    with runs[3].lock():
        assert sync(f"paths.runs={tmp_path / 'runs'}") == 0
    out = capsys.readouterr().out
    assert out.count("8 points sent") == 2
    assert "off  not tracked" in out
    assert "busy  in use by process" in out
    assert sync(f"paths.runs={tmp_path / 'runs'}") == 0
    out = capsys.readouterr().out
    assert out.count("up to date") == 2
    assert out.count("8 points sent") == 1  # the one that was busy
    assert len(select(store, "SELECT * FROM runs")) == 3


def test_no_run_at_all(tmp_path, capsys):
    assert sync(f"paths.runs={tmp_path}") == 0
    assert f"nothing to send from {tmp_path}" in capsys.readouterr().out


def test_into_another_store_and_back(make_run, make_store, store):
    run, other = make_run("a"), make_store("other.db")
    for words in ([], [f"paths.mlflow={other}"], [], [f"tracking.uri=sqlite:///{other}"]):
        assert sync(f"run={run.path}", *words) == 0
    for one in (store, other):
        assert in_store(one) == in_journal(run)
        ((run_id,),) = select(one, "SELECT run_uuid FROM runs")
        assert status(one, run_id) == "FINISHED"
    assert sync(f"run={run.path}", "tracking.experiment=elsewhere", f"paths.mlflow={make_store('third.db')}") == 0
    assert set(read_json(run.mlflow)["elsewhere"]) == {f"sqlite:///{store}", f"sqlite:///{other}"}


def test_a_run_that_is_trained_or_copied_is_left_alone(make_run, store, capsys):
    run = make_run("a")
    with run.lock():
        assert sync(f"run={run.path}") == 73
    assert "keeps its copy itself" in capsys.readouterr().err
    with keep_alone(run.path):
        assert sync(f"run={run.path}") == 73
    assert select(store, "SELECT * FROM runs") == []


def test_no_such_run_and_a_damaged_one(make_run, tmp_path, capsys):
    run = make_run("a")
    assert sync("run=b", f"paths.runs={run.path.parent}") == 2
    assert "did you mean a?" in capsys.readouterr().err
    run.save_config({"tracking": 3})
    (run.path / "tracking.json").unlink()
    assert sync(f"run={run.path}") == 2
    run.config.write_text("{")
    make_run("good")
    assert sync(f"paths.runs={run.path.parent}") == 2
    assert "8 points sent" in capsys.readouterr().out  # the good one all the same


def test_a_store_that_is_down_is_asked_once_for_all_runs(make_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    make_run("a"), make_run("b")
    assert sync(f"paths.runs={tmp_path / 'runs'}", "tracking.uri=http://127.0.0.1:9") == 74
    said = capsys.readouterr()
    assert "http://127.0.0.1:9" in said.err
    assert "the run folder has everything" in said.err
    assert said.out.count("cannot be reached") == 1
    assert "b  not sent" in said.out


def test_two_at_once_send_each_point_once(make_run, store):
    run = make_run("a")
    command = [sys.executable, "-m", "segkit.sync", f"run={run.path}"]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) for _ in "ab"]
    codes = sorted(one.wait(120) for one in both)
    for one in both:
        one.communicate()
    assert codes in ([0, 0], [0, 73])
    assert in_store(store) == in_journal(run)
    assert doubles(store) == []
    assert len(select(store, "SELECT * FROM runs")) == 1

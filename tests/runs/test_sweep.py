"""What makes runs in one folder a sweep, and how it is found."""

import pytest

from segkit.runs.directory import RunDirectory
from segkit.runs.files import write_json, write_yaml
from segkit.runs.sweep import SweepDirectory, open_sweep, sweeps_below


def make_runs(folder, *names):
    runs = [RunDirectory(folder / name).create() for name in names]
    for run in runs:
        run.save_config({})
    return runs


def test_runs_come_in_the_order_of_their_numbers(tmp_path):
    make_runs(tmp_path / "s", "10-fold=10", "9-fold=9", "a", "2-fold=2")
    assert [run.name for run in SweepDirectory(tmp_path / "s").runs] == ["2-fold=2", "9-fold=9", "10-fold=10", "a"]


def test_jobs_of_a_multirun_belong_together_and_say_what_was_swept(tmp_path):
    runs = make_runs(tmp_path / "s", "0", "1")
    sweep = SweepDirectory(tmp_path / "s")
    assert sweep.members == ()
    assert sweep.swept == []
    write_yaml(sweep.multirun, {"hydra": {"overrides": {"task": ["seed=0,1", "run_name=s"]}}})
    assert sweep.members == tuple(runs)
    assert sweep.swept == ["seed=0,1", "run_name=s"]


@pytest.mark.parametrize("subset", ["test", "held_out"])
def test_runs_that_were_evaluated_together_belong_together_and_others_beside_them_do_not(tmp_path, subset):
    make_runs(tmp_path / "s", "a", "b", "c")
    sweep = SweepDirectory(tmp_path / "s")
    (sweep.evaluation / subset).mkdir(parents=True)
    write_json(sweep.evaluation / subset / "summary.json", {"runs": ["a", "c"]})
    assert [run.name for run in sweep.members] == ["a", "c"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"runs": 3}', '{"hydra": 3}'])
def test_damaged_files_make_no_sweep(tmp_path, text):
    make_runs(tmp_path / "s", "a")
    sweep = SweepDirectory(tmp_path / "s")
    (sweep.evaluation / "test").mkdir(parents=True)
    (sweep.evaluation / "test" / "summary.json").write_text(text)
    assert sweep.members == ()
    sweep.multirun.write_text(text)
    assert sweep.swept == []


def test_found_by_path_and_by_name_and_a_run_is_none(tmp_path):
    (run,) = make_runs(tmp_path / "runs" / "s", "0")
    assert open_sweep(tmp_path / "runs" / "s") == SweepDirectory(tmp_path / "runs" / "s")
    assert open_sweep("s", root=tmp_path / "runs") == SweepDirectory(tmp_path / "runs" / "s")
    assert open_sweep(run.path) is None
    assert open_sweep(tmp_path / "nowhere") is None
    assert open_sweep("0", root=tmp_path / "runs" / "s") is None


def test_below_a_folder_only_those_whose_runs_belong_together(tmp_path):
    make_runs(tmp_path, "single")
    make_runs(tmp_path / "s", "0")
    make_runs(tmp_path / "by_hand", "0")
    write_yaml(tmp_path / "s" / "multirun.yaml", {})
    assert [sweep.name for sweep in sweeps_below(tmp_path)] == ["s"]

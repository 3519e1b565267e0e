import sys
from types import ModuleType

import pytest

from segkit.configuration.entry import main
from segkit.configuration.multirun import job_name
from segkit.errors import DataError, Preempted


@pytest.fixture
def jobs(monkeypatch, tmp_path):
    """The configurations that a stand-in for training was given; seed 2 fails, seed 4 is stopped."""
    seen = []

    def run(config):
        seen.append(config)
        if config["seed"] == 2:
            raise DataError("seed 2 fails")
        if config["seed"] == 4:
            raise Preempted("asked to stop")

    module = ModuleType("segkit.workflows.train")
    module.run = run
    monkeypatch.setitem(sys.modules, "segkit.workflows.train", module)
    monkeypatch.chdir(tmp_path)
    return seen


def test_each_combination_is_a_run_of_its_own_name(jobs, tmp_path):
    argv = ["-m", "seed=1,3", "loss=dice,cross_entropy", "run_name=s", "plan=tiny", "trainer.max_epochs=2"]
    before = list(sys.argv)
    assert main("train", argv) == 0
    assert [(job["seed"], job["loss"]["_target_"].rpartition(".")[2]) for job in jobs] == [
        (1, "DiceLoss"),
        (1, "CrossEntropyLoss"),
        (3, "DiceLoss"),
        (3, "CrossEntropyLoss"),
    ]
    assert [job["run_name"] for job in jobs] == [
        "s/0-seed=1,loss=dice",
        "s/1-seed=1,loss=cross_entropy",
        "s/2-seed=3,loss=dice",
        "s/3-seed=3,loss=cross_entropy",
    ]
    assert all(job["plan"]["name"] == "tiny" and job["trainer"]["max_epochs"] == 2 for job in jobs)
    assert [path.name for path in (tmp_path / "runs" / "s").iterdir()] == ["multirun.yaml"]
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert sys.argv == before


def test_a_job_that_fails_is_told_and_the_others_go_on(jobs, capsys):
    assert main("train", ["--multirun", "seed=1,2,3"]) == 65
    assert [job["seed"] for job in jobs] == [1, 2, 3]
    assert "seed 2 fails" in capsys.readouterr().err
    assert jobs[0]["run_name"].startswith("sweep-20")


def test_a_signal_ends_the_sweep_and_not_only_its_job(jobs):
    assert main("train", ["--multirun", "seed=2,4,5"]) == 75
    assert [job["seed"] for job in jobs] == [2, 4]


def test_every_value_is_checked_before_the_first_job(jobs, capsys):
    assert main("train", ["-m", "seed=1,-2", "validation.step=0.5,2", "loss=dice,dise", "sed=1,2"]) == 2
    err = capsys.readouterr().err
    assert "4 problems" in err
    assert "-2 does not fit" in err
    assert "2 does not fit; expected float in (0, 1]" in err
    assert "no choice 'dise'" in err
    assert jobs == []


def test_open_keys_can_be_swept(jobs):
    assert main("train", ["-m", "loss=custom", "loss._target_=a.B", "loss.args.alpha=1,2"]) == 0
    assert [job["loss"]["args"] for job in jobs] == [{"alpha": 1}, {"alpha": 2}]


def test_job_names_suit_any_file_system():
    words = ["data.root=/a/b c", "optimizer.lr=0.1"]
    assert job_name("s", 4, words, ["data.root", "optimizer.lr"]) == "s/4-root=_a_b_c,lr=0.1"

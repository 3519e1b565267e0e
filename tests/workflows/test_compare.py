"""`compare` by its own door, on tables as `evaluate` writes them."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.evaluation_tables import write_tables

import segkit
from segkit.configuration.entry import main
from segkit.runs.directory import RunDirectory
from segkit.workflows.evaluate import run as evaluate


def dice(seed, n=8, gain=0.0):
    shared = np.random.default_rng(99).uniform(0.5, 0.8, (n, 2))
    values = np.round(shared + gain + np.random.default_rng(seed).normal(0, 0.03, (n, 2)), 3)
    return {f"c{k:03d}": tuple(row) for k, row in enumerate(values.tolist())}


@pytest.fixture
def make(tmp_path):
    """Factory: a run that was evaluated; returns its folder."""

    def run(name, seed=0, *, scores=None, subset="test", config=None, **facts):
        directory = RunDirectory(tmp_path / "runs" / name).create()
        directory.save_config({"seed": seed, "network": {"features": 8}, "optimizer": {"lr": 0.1}, **(config or {})})
        folder = directory.path / "evaluation" / subset
        write_tables(folder, scores or dice(sum(map(ord, name))), run=name, subset=subset, **facts)
        return directory.path

    return run


@pytest.fixture
def call(tmp_path, capsys):
    """The verb in this process: exit code, stdout, stderr."""

    def door(*words):
        code = main("compare", [f"paths.runs={tmp_path / 'runs'}", *words])
        out, err = capsys.readouterr()
        return code, out, err

    return door


def stored(tmp_path, name):
    return json.loads((tmp_path / "runs" / "comparisons" / name / "comparison.json").read_text())


def test_two_runs_by_name(make, call, tmp_path):
    make("a", scores=dice(1, 25))
    make("b", scores=dice(2, 25, gain=0.1))
    code, out, _ = call("reference=a", "candidate=b")
    assert code == 0
    assert "test: the same 25 cases of 25 groups on both sides" in out
    assert "dice front: the candidate is better by 0.1" in out
    assert "family of 3, 5% for all together (Holm): dice front, dice back, dice mean" in out
    assert "about these two models on new people; nothing is said of the methods" in out
    folder = tmp_path / "runs" / "comparisons" / "b-vs-a-test"
    assert str(folder) in out
    assert sorted(path.name for path in folder.iterdir()) == ["comparison.json", "differences.csv"]
    found = stored(tmp_path, "b-vs-a-test")
    assert [row["verdict"] for row in found["rows"]] == ["candidate better"] * 3
    assert (found["label"], found["reference"][0]["run"], found["candidate"][0]["run"]) == ("test", "a", "b")


def test_folders_of_tables_and_an_output_of_ones_own(make, call, tmp_path):
    first, second = (write_tables(tmp_path / name, dice(seed)) for seed, name in enumerate(("one", "two")))
    code, _, _ = call(f"reference={first}", f"candidate={second}", f"output={tmp_path / 'out'}", "metrics=[dice,iou]")
    assert code == 0
    assert len(json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"]) == 6
    assert not (tmp_path / "runs").exists()
    inside = make("a") / "evaluation" / "test"
    assert call(f"reference={first}", f"candidate={inside}")[0] == 0
    assert (tmp_path / "runs" / "comparisons" / "a-vs-one-test").is_dir()


def test_held_out_people_are_held_out(make, call, tmp_path):
    for seed, name in enumerate(("a", "b")):
        make(name, scores=dice(seed), subset="held_out", label="held out")
    code, out, _ = call("reference=a", "candidate=b", "subset=held_out")
    assert code == 0
    assert "held out: the same 8 cases of 8 groups on both sides" in out
    assert stored(tmp_path, "b-vs-a-held_out")["label"] == "held out"


def test_three_seeds_a_side_are_methods(make, call, tmp_path):
    names = {side: [make(f"{side}{seed}", seed, config={"network": {"features": side}}).name for seed in range(3)]
             for side in "ab"}  # fmt: skip
    code, out, _ = call(f"reference=[{','.join(names['a'])}]", f"candidate=[{','.join(names['b'])}]")
    assert code == 0
    assert "about these two methods (3 and 3 seeds)" in out
    assert stored(tmp_path, "b0-x3-vs-a0-x3-test")["scope"] == "methods"


def test_runs_of_one_side_must_be_seeds_of_one_method(make, call):
    make("a", 0), make("b", 1, config={"optimizer": {"lr": 0.2}}), make("c", 0), make("d", 2)
    code, _, err = call("reference=[a,b]", "candidate=d")
    assert (code, "not seeds of one method" in err, "optimizer.lr: 0.1 and 0.2" in err) == (2, True, True)
    code, _, err = call("reference=d", "candidate=[a,c]")
    assert (code, "one training made twice" in err, "seed 0 twice" in err) == (2, True, True)


def test_tables_without_runs_are_taken_for_seeds_and_it_is_told(make, call, tmp_path):
    tables = [write_tables(tmp_path / f"t{k}", dice(k)) for k in range(2)]
    code, out, _ = call(f"reference=[{tables[0]},{tables[1]}]", f"candidate={make('a')}")
    assert code == 0
    assert "reference: given as tables; that they are of one method and of different seeds was not checked" in out


def test_a_run_that_is_named_twice(make, call, tmp_path):
    path = make("a")
    make("b")
    code, _, err = call("reference=a", f"candidate=[b,{path}]")
    assert (code, "one evaluation is named twice" in err) == (2, True)


def test_different_test_sets_are_refused(make, call, tmp_path):
    make("a")
    make("b", scores=dice(0, 9))
    code, _, err = call("reference=a", "candidate=b")
    assert (code, "different test sets" in err, "c008" in err) == (65, True, True)
    assert not (tmp_path / "runs" / "comparisons").exists()


def test_another_truth_is_refused(make, call):
    make("a")
    make("b", voxels=2000)
    code, _, err = call("reference=a", "candidate=b")
    assert (code, "different labels" in err, "case c000, class front" in err) == (65, True, True)


@pytest.mark.parametrize(
    "facts", [{"label": "SEEN CASES", "seen_cases": ["c001"]}, {"label": "selection score (optimistic)"}]
)
def test_seen_cases_are_refused_or_marked(make, call, tmp_path, facts):
    make("a")
    make("b", **facts)
    code, _, err = call("reference=a", "candidate=b")
    assert (code, "a model has seen the cases" in err, "allow_seen=true" in err) == (65, True, True)
    code, out, _ = call("reference=a", "candidate=b", "allow_seen=true")
    assert (code, out.startswith("*** SEEN CASES")) == (0, True)
    folder = tmp_path / "runs" / "comparisons" / "b-vs-a-test"
    assert stored(tmp_path, folder.name)["label"] == "SEEN CASES"
    lines = (folder / "differences.csv").read_text().splitlines()
    assert all(line.endswith(("note", "SEEN CASES")) for line in lines)


def test_tables_of_unknown_history_say_so(make, call, tmp_path):
    folder = write_tables(tmp_path / "foreign", dice(5), label="whatever")
    facts = json.loads((folder / "summary.json").read_text())
    del facts["seen_cases"]
    (folder / "summary.json").write_text(json.dumps(facts))
    code, out, _ = call(f"reference={make('a')}", f"candidate={folder}")
    assert (code, "cases whose history is not known" in out, "what foreign was trained on" in out) == (0, True, True)


def test_what_is_not_there_is_named_with_the_command_that_makes_it(make, call, tmp_path):
    make("a"), make("b", subset="tuning")
    code, _, err = call("reference=a", "candidate=b")
    assert (code, "was not evaluated" in err, "segkit.evaluate run=" in err) == (2, True, True)
    code, _, err = call("reference=a", "candidate=c")
    assert (code, "There is no run of that name" in err) == (2, True)
    (tmp_path / "runs/a/evaluation/test/per_case.csv").unlink()
    code, _, err = call("reference=b", "candidate=a", "subset=test")
    assert code == 2
    code, _, err = call("reference=a", "candidate=b", "metrics=[dise]")
    assert code == 2


def test_an_unknown_metric_and_one_that_the_tables_lack(make, call):
    make("a"), make("b")
    code, _, err = call("reference=a", "candidate=b", "metrics=dise")
    assert (code, "no metric to compare by: dise" in err) == (2, True)
    code, _, err = call("reference=a", "candidate=b", "metrics=[dice,hd95]")
    assert (code, "the table has no column hd95" in err) == (65, True)


def test_checkpoints_of_a_real_run_from_python(nnunet_raw, threshold_run, tmp_path, monkeypatch):
    """As a person would: evaluate twice, compare. The first checkpoint predicts nothing, the second nearly all."""
    monkeypatch.chdir(tmp_path)
    path = threshold_run(nnunet_raw(cases=9, num_classes=2, shape=(18, 20, 16)), 1.4)
    folders = []
    for step in (1, 2):
        folders.append(tmp_path / f"step-{step}")
        evaluate(
            {"run": str(path), "subset": "test", "overlays": 0, "trainer": {"accelerator": "cpu"}}
            | {"checkpoint": f"step-0000000{step}", "output": str(folders[-1])}
        )
    found = segkit.compare([f"reference={folders[0]}", f"candidate={folders[1]}"])
    (row,) = found.rows
    assert row.difference.reference == 0
    assert row.difference.candidate > 0.9
    assert row.verdict == "too few groups"
    assert (Path("runs") / "comparisons" / "step-2-vs-step-1-test" / "comparison.json").is_file()

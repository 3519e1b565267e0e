import pytest

from segkit.runs.directory import RunDirectory
from segkit.tracking.folder import ending_of, files_of, fingerprint, runs_below, selected, times
from segkit.tracking.journal import Journal


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path / "runs" / "a").create()


@pytest.mark.parametrize(
    ("state", "ending"),
    [
        ("finished", ("FINISHED", "why")),
        ("failed", ("FAILED", "why")),
        ("preempted", ("KILLED", "why")),
        ("running", ("KILLED", "left without an end")),
    ],
)
def test_ending(run, state, ending):
    run.save_status(state, reason="why")
    assert ending_of(run) == ending


def test_a_run_without_status_was_left(run):
    assert ending_of(run) == ("KILLED", "left without an end")
    assert selected(run) is None


def test_files_and_their_names(run):
    run.save_config({})
    run.per_case.write_text("x")
    (run.overlays / "epoch-1").mkdir()
    (run.overlays / "epoch-1" / "a.png").write_text("x")
    (run.overlays / ".half.tmp").write_text("x")
    (run.path / "evaluation" / "test" / "predictions").mkdir(parents=True)
    (run.path / "evaluation" / "test" / "predictions" / "a.nii.gz").write_text("x")
    (run.path / "evaluation" / "test" / "summary.json").write_text("{}")
    names = [name for _, name in files_of(run)]
    assert names == ["config.yaml", "per_case.csv", "overlays/epoch-1/a.png", "evaluation/test/summary.json"]


def test_rows_beside_an_evaluation_and_the_rules_for_masks(run):
    test = run.path / "evaluation" / "test"
    for row in ("mirrored", "postprocessed"):
        (test / row).mkdir(parents=True)
        (test / row / "summary.json").write_text("{}")
    (test / "summary.json").write_text("{}")
    for file in ("comparison.json", "differences.csv", "per_case.csv"):
        (test / "mirrored" / file).write_text("{}")
    (run.path / "postprocessing.json").write_text("{}")
    mirrored = [f"evaluation/test/mirrored/{name}" for name in ("summary.json", "per_case.csv")]
    mirrored += [f"evaluation/test/mirrored/{name}" for name in ("comparison.json", "differences.csv")]
    # The other row is compared with none: the plain evaluation was made again since.
    assert [name for _, name in files_of(run)] == ["evaluation/test/summary.json", *mirrored, "postprocessing.json"]


def test_fingerprint_follows_every_file_of_the_copy(run):
    seen = {fingerprint(run)}
    Journal(run.metrics, run.timings).metrics({"a": 1.0}, n=1, step=1, epoch=1)
    seen.add(fingerprint(run))
    run.save_status("finished")
    seen.add(fingerprint(run))
    run.report.write_text("x")
    seen.add(fingerprint(run))
    assert len(seen) == 4
    (run.checkpoints / "x").write_text("not a part of it")
    assert fingerprint(run) in seen


def test_the_time_of_an_n_is_its_first(run):
    journal = Journal(run.metrics, run.timings)
    journal.timing({"time/clock": 10.5}, n=2, step=1, epoch=1)
    journal.timing({"time/clock": 99.0}, n=2, step=1, epoch=1)
    journal.timing({"time/clock": float("nan")}, n=4, step=2, epoch=1)
    assert times(run) == {2: 10_500}


def test_runs_and_those_of_sweeps(run, tmp_path):
    child = RunDirectory(tmp_path / "runs" / "sweep" / "0-seed=1").create()
    for one in (run, child):
        one.save_config({})
    assert list(runs_below(tmp_path / "runs")) == [run, child]

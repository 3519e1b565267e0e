"""A run and a sweep keep what verbs write under the same names."""

from pathlib import Path

import pytest

from segkit.runs.directory import RunDirectory
from segkit.runs.sweep import SweepDirectory


@pytest.mark.parametrize("kind", [RunDirectory, SweepDirectory])
def test_the_same_names_below_an_absolute_path(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = kind(Path("runs/a"))
    monkeypatch.chdir("/")  # moves nothing
    assert folder.path == tmp_path / "runs" / "a"
    assert folder.name == "a"
    found = (folder.evaluation, folder.report, folder.tracking, folder.mlflow)
    assert [path.relative_to(folder.path).as_posix() for path in found] == [
        *("evaluation", "report.html", "tracking.json", "mlflow.json")
    ]


def test_a_sweep_is_no_run_of_the_same_folder(tmp_path):
    assert RunDirectory(tmp_path) != SweepDirectory(tmp_path)
    assert RunDirectory(tmp_path) == RunDirectory(tmp_path)

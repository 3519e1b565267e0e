"""Names of runs and the way back to them."""

from datetime import datetime
from pathlib import Path

import pytest

from segkit.errors import UsageError
from segkit.runs.directory import RunDirectory
from segkit.runs.locate import default_name, open_run

WHEN = datetime(2026, 1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("dataset", "experiment", "name"),
    [
        ("Dataset004_Hippocampus", "demo", "Dataset004_Hippocampus-demo-20260102-030405"),
        ("my data/x", None, "my-data-x-20260102-030405"),
        ("../..", "", "20260102-030405"),
    ],
)
def test_default_name(dataset: str, experiment: str | None, name: str) -> None:
    assert default_name(dataset, experiment, WHEN) == name


def test_found_by_path_and_by_name(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "hippocampus-1").create().save_config({})
    assert open_run(tmp_path / "hippocampus-1").name == "hippocampus-1"
    assert open_run("hippocampus-1", root=tmp_path).path == tmp_path / "hippocampus-1"
    with pytest.raises(UsageError, match="did you mean hippocampus-1"):
        open_run("hippocampus-2", root=tmp_path)

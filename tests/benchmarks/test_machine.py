"""What a report says of how it was made."""

import pytest
from benchmarks.machine import command_line

HERE = "/home/somebody/sets"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["unet", f"--data={HERE}/D4"], "unet --data=D4"),
        (["unet", "--data", f"{HERE}//D4/", "--quick"], "unet --data D4 --quick"),
        ([f"--results={HERE}/out", "scan"], "--results=out scan"),
        (["scan", "--quick"], "scan --quick"),
    ],
)
def test_where_folders_lie_is_not_told(words, told):
    assert command_line(words) == f"python -m benchmarks {told}"


def test_a_folder_that_is_here_is_told_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command_line(["--data", ".", "--results=../x"]) == f"python -m benchmarks --data {tmp_path.name} --results=x"

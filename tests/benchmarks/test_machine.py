"""What a report says of how it was made."""

from pathlib import Path

import pytest
from benchmarks.machine import command_line


@pytest.mark.parametrize("words", [["--data=/home/somebody/sets/D4"], ["--data", "/home/somebody/sets/D4"]])
def test_where_the_data_lie_is_not_told(words):
    told = command_line(["unet", *words], Path("/home/somebody/sets/D4"))
    assert told.startswith("python -m benchmarks unet --data")
    assert told.endswith("D4")
    assert "somebody" not in told


def test_without_data_every_word_is_told():
    assert command_line(["scan", "--quick"], None) == "python -m benchmarks scan --quick"

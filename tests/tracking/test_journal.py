"""The journal loses nothing, doubles nothing, and survives a torn line."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segkit.tracking.journal import CLOCK, Journal, Row, read_rows


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "metrics.jsonl", tmp_path / "timings.jsonl")


@given(st.floats(), st.text())
def test_a_row_comes_back_to_the_last_bit(value: float, key: str) -> None:
    line = Row(1, 2, 3, key, value).to_line()
    assert line.count("\n") == 1
    back = Row.from_line(line)
    assert back.key == key
    assert back.value == value or (math.isnan(back.value) and math.isnan(value))


def test_lines_are_strict_json(journal: Journal) -> None:
    journal.metrics({"a": math.nan, "b": -math.inf}, n=1, step=1, epoch=1)

    def refuse(token: str) -> None:
        raise AssertionError(token)

    rows = [json.loads(line, parse_constant=refuse) for line in journal.metrics_path.read_text().splitlines()]
    assert [row["value"] for row in rows] == ["nan", "-inf"]
    assert list(rows[0]) == ["n", "step", "epoch", "key", "value"]


def test_metrics_hold_no_clock(journal: Journal) -> None:
    journal.metrics({"train/loss": 0.5}, n=4, step=2, epoch=1)
    journal.timing({"time/epoch_s": 3.0}, n=4, step=2, epoch=1)
    assert [row.key for row in read_rows(journal.metrics_path)] == ["train/loss"]
    assert [row.key for row in read_rows(journal.timings_path)] == [CLOCK, "time/epoch_s"]


def test_cut_keeps_what_came_up_to_n(journal: Journal) -> None:
    for step in range(1, 6):
        journal.metrics({"train/loss": 1 / step}, n=2 * step, step=step, epoch=1)
    journal.cut(6)
    assert [row.n for row in read_rows(journal.metrics_path)] == [2, 4, 6]
    assert [row.n for row in read_rows(journal.timings_path)] == [2, 4, 6]
    journal.cut(0)
    assert journal.metrics_path.read_text() == ""


def test_cut_and_continued_equals_uninterrupted(tmp_path: Path, journal: Journal) -> None:
    whole = Journal(tmp_path / "whole.jsonl", tmp_path / "whole_t.jsonl")

    def record(target: Journal, steps: range) -> None:
        for step in steps:
            target.metrics({"train/loss": math.sin(step), "lr": 1e-3 / step}, n=2 * step, step=step, epoch=1)

    record(whole, range(1, 11))
    record(journal, range(1, 8))
    journal.cut(8)
    record(journal, range(5, 11))
    assert journal.metrics_path.read_bytes() == whole.metrics_path.read_bytes()


@pytest.mark.parametrize("size", range(1, 57, 7))
def test_torn_last_line_is_dropped(journal: Journal, size: int) -> None:
    journal.metrics({"a": 1.0}, n=1, step=1, epoch=1)
    kept = journal.metrics_path.read_bytes()
    line = Row(1, 1, 1, "b", 2.0).to_line().encode()
    assert size < len(line)
    journal.metrics_path.write_bytes(kept + line[:size])
    assert [row.key for row in read_rows(journal.metrics_path)] == ["a"]
    journal.cut(1)
    assert journal.metrics_path.read_bytes() == kept


@pytest.mark.parametrize("line", ["", "[]", "{}", "null", "[" * 10**5, '{"n": "x"}'])
def test_hostile_lines_are_passed_over(journal: Journal, line: str) -> None:
    journal.metrics_path.write_text(line + "\n" + Row(1, 1, 1, "a", 1.0).to_line())
    assert [row.key for row in read_rows(journal.metrics_path)] == ["a"]


def test_sync_of_nothing(journal: Journal) -> None:
    journal.sync()
    journal.cut(3)
    assert list(read_rows(journal.metrics_path)) == []

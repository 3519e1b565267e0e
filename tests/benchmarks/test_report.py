"""Tables of what was measured, and whether it is enough."""

import pytest
from benchmarks.floors import FLOORS, GPU_FLOORS, verdict
from benchmarks.harness import Contender, Measured, Pair, Row, Spread
from benchmarks.report import Outcome, comparison, details, document, number, write
from benchmarks.rows import NAMES, load


def outcome(pairs, measured, *, skipped=""):
    contenders = {name: Contender(build=lambda: None, precision=f"precision of {name}") for name in measured}
    row = Row("step", "Step", "What is timed.", "s", lambda bench: contenders, pairs, rounds=3)
    found = {name: [Measured(*value) for value in values] for name, values in measured.items()}
    return Outcome(row, contenders, found, 12.0, skipped)


def cells(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_a_line_has_both_ratios_and_the_verdict():
    measured = {
        "nnU-Net": [(4.0,), (8.0,), (4.0,)],
        "segkit": [(2.0,), (4.0,), (1.0,)],
        "segkit fp32": [(4.0,), (8.0,), (4.0,)],
    }
    lines = cells(comparison([outcome((Pair("nnU-Net", "segkit", "segkit fp32"),), measured)], FLOORS))
    assert lines[0] == ["what", "against", "ours", "theirs", "ratio", "same precision", "floor"]
    assert lines[2] == [
        "Step",
        "nnU-Net",
        "2 s",
        "4 s",
        "2.00 (2.00 to 3.60)",
        "1.00 (1.00 to 1.00)",
        "2.0x: met",
    ]


def test_several_of_ours_beside_one_peer_are_told_apart():
    pairs = (Pair("nnU-Net", "small"), Pair("nnU-Net", "large"), Pair("MONAI", "large"))
    one = [(1.0,)]
    lines = cells(comparison([outcome(pairs, {"nnU-Net": one, "MONAI": one, "small": one, "large": one})], {}))
    assert [line[0] for line in lines[2:]] == ["Step: small", "Step: large", "Step"]


def test_a_pair_whose_contender_does_not_take_part_has_no_line():
    pairs = (Pair("nnU-Net", "segkit"), Pair("absent", "segkit"))
    assert len(cells(comparison([outcome(pairs, {"nnU-Net": [(1.0,)], "segkit": [(1.0,)]})], {}))) == 3


def test_a_row_that_failed_says_why_and_claims_nothing():
    text = comparison([outcome((Pair("nnU-Net", "segkit"),), {}, skipped="failed: OSError()\nmore")], FLOORS)
    assert "failed: OSError()" in text
    assert "more" not in text
    assert "met" not in text
    assert "Not measured: failed" in details(outcome((), {}, skipped="failed: OSError()"))


def test_figures_beside_stand_where_they_were_measured():
    measured = {"a": [(1.0, {"peak_mb": 900.0}), (3.0, {"peak_mb": 1100.0})], "b": [(2.0, {}), (2.0, {})]}
    lines = cells(details(outcome((), measured)).split("\n\n")[2])
    assert lines[0] == ["contender", "precision", "median (s)", "10 to 90 %", "peak_mb"]
    assert lines[2:] == [
        ["a", "precision of a", "2", "1.2 to 2.8", "1000"],
        ["b", "precision of b", "2", "2 to 2", ""],
    ]


def test_the_document_begins_with_what_a_reader_needs():
    text = document("Benchmarks", {"commit": "abc"}, [], floors={}, notes=["Skipped: no CUDA device."])
    assert text.startswith("# Benchmarks\n\nSkipped: no CUDA device.\n\n- commit: abc\n")


@pytest.mark.parametrize(
    ("value", "text"), [(1234.4, "1234"), (99.96, "100"), (52.31, "52.3"), (0.01234, "0.0123"), (0.0, "0")]
)
def test_three_figures_count(value, text):
    assert number(value) == text


def test_a_floor_is_met_by_the_median():
    assert verdict(Spread(2.0, 1.5, 2.5), 2.0) == "met"
    assert verdict(Spread(1.99, 1.9, 2.5), 2.0) == "missed"


@pytest.mark.parametrize("floors", [FLOORS, GPU_FLOORS])
def test_every_floor_belongs_to_a_pair_of_a_row(floors):
    for name, peer in floors:
        assert peer in [pair.peer for pair in load(name).pairs]


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_called_as_its_module(name):
    assert load(name).name == name
    with pytest.raises(KeyError, match="there are"):
        load(f"{name}s")


def test_a_report_of_the_same_day_stays(tmp_path):
    written = [write(tmp_path / "results", "2026-01-01-cpu", text) for text in ("a", "b", "c")]
    assert [path.name for path in written] == ["2026-01-01-cpu.md", "2026-01-01-cpu-2.md", "2026-01-01-cpu-3.md"]
    assert [path.read_text() for path in written] == ["a", "b", "c"]

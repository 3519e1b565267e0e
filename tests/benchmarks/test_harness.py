"""The arithmetic of the comparison."""

import itertools
import statistics
import sys

import numpy as np
import pytest
from benchmarks.harness import Measured, measure, paired_ratio, quantile, rotated, spread, timed
from hypothesis import given
from hypothesis import strategies as st

FIGURES = st.floats(min_value=1e-3, max_value=1e6)


@given(st.lists(FIGURES, min_size=1, max_size=30), st.floats(min_value=0.0, max_value=1.0))
def test_a_quantile_is_numpys(values, share):
    assert quantile(values, share) == pytest.approx(np.quantile(values, share), rel=1e-9)


def test_there_is_no_quantile_of_nothing():
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_a_spread_is_the_median_between_the_tenth_and_ninetieth_percentile():
    found = spread(list(range(101)))
    assert (found.low, found.median, found.high) == (10, 50, 90)


def test_a_ratio_is_taken_round_by_round():
    # A neighbour doubled the second round for both: the ratio does not move.
    found = paired_ratio([3.0, 6.0, 3.0], [1.0, 2.0, 1.0])
    assert (found.low, found.median, found.high) == (3.0, 3.0, 3.0)


@given(st.lists(st.tuples(FIGURES, FIGURES), min_size=1, max_size=15))
def test_a_ratio_turned_round_is_its_inverse(rounds):
    theirs, ours = [a for a, _ in rounds], [b for _, b in rounds]
    ratio, inverse = paired_ratio(theirs, ours), paired_ratio(ours, theirs)
    assert ratio.low <= ratio.median <= ratio.high
    if len(rounds) % 2:  # the median is then one of the quotients
        assert ratio.median * inverse.median == pytest.approx(1.0)
    assert ratio.median == pytest.approx(statistics.median(a / b for a, b in rounds))


def test_rounds_must_pair():
    with pytest.raises(ValueError, match="round by round"):
        paired_ratio([1.0, 2.0], [1.0])


def test_rotation_puts_each_first_and_after_each_other_equally_often():
    names = ["a", "b", "c", "d"]
    orders = [rotated(names, turn) for turn in range(8)]
    assert all(sorted(order) == names for order in orders)
    for place in range(4):
        assert [order[place] for order in orders].count("a") == 2


def test_measuring_interleaves_and_drops_the_warm_up():
    calls, clock = [], itertools.count()

    def run(name):
        def one():
            calls.append(name)
            return Measured(float(next(clock)))

        return one

    found = measure({name: run(name) for name in "abc"}, rounds=3, warmup=2)
    assert "".join(calls) == "bcacab" + "abcbcacab"  # turns -2, -1, then 0, 1, 2
    assert {name: [int(one.value) for one in values] for name, values in found.items()} == {
        "a": [6, 11, 13],
        "b": [7, 9, 14],
        "c": [8, 10, 12],
    }


def test_what_contenders_print_is_not_shown(capsys):
    def run():
        sys.stdout.write("Using device: cpu")
        return Measured(1.0)

    measure({"one": run}, rounds=2, warmup=1)
    assert capsys.readouterr().out == ""


def test_timing_calls_as_often_as_asked_and_divides(monkeypatch):
    now = itertools.count(step=10)
    monkeypatch.setattr("benchmarks.harness.time.perf_counter", lambda: float(next(now)))
    calls = []
    assert timed(lambda: calls.append(1), unit="ms", times=4)().value == 10 / 4 * 1e3
    assert timed(lambda: calls.append(1), unit="s")().value == 10
    assert len(calls) == 5

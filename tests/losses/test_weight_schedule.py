"""Weights by epoch."""

import pytest

from segkit.errors import UsageError
from segkit.losses.weight_schedule import WeightSchedule, constant, read_points


def test_linear_between_the_points_and_constant_outside():
    schedule = WeightSchedule(read_points({10: 3.0, 2: 1.0, 14: 0.0}, where="loss.schedule.x"))
    assert [schedule.at(epoch) for epoch in (0, 2, 4, 10, 11, 14, 99)] == [1.0, 1.0, 1.5, 3.0, 2.25, 0.0, 0.0]
    assert schedule.last == 14


def test_constant():
    assert {constant(2).at(epoch) for epoch in (0, 1, 1000)} == {2.0}


def test_epochs_may_be_written_as_text():
    assert read_points({"5": 1, "0": 0}, where="") == ((0, 0.0), (5, 1.0))


@pytest.mark.parametrize("points", [{-1: 1.0}, {0.5: 1.0}, {"x": 1.0}, {0: -1.0}, {0: "1"}, {0: float("inf")}, 3])
def test_what_is_no_schedule_is_refused_by_its_key(points):
    with pytest.raises(UsageError, match=r"loss\.schedule\.blob"):
        read_points(points, where="loss.schedule.blob")

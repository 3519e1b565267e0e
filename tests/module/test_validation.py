"""Cases into the numbers of a validation: each once, in whatever order they come."""

import math

import pytest

from segkit.evaluation import CaseResult, EvaluationSettings
from segkit.metrics.composite import ClassCounts
from segkit.module.validation import defined, validation_of
from segkit.types import Labels

LABELS = Labels(("background", "thing"), (0, 1))


def case(name: str, *, tp: int, fp: int, fn: int, loss: float) -> tuple[CaseResult, float]:
    return CaseResult(name, name, (ClassCounts(name, name, 1, tp, fp, fn, None),)), loss


def test_the_order_and_repeats_change_nothing():
    cases = [case("b", tp=3, fp=1, fn=0, loss=0.1), case("a", tp=1, fp=0, fn=1, loss=0.7)]
    one = validation_of(cases, LABELS, EvaluationSettings())
    other = validation_of([*reversed(cases), cases[0]], LABELS, EvaluationSettings())
    assert one.values() == other.values()
    assert one.loss == pytest.approx(0.4)
    assert one.summary.n_cases == 2
    assert set(one.values()) >= {"val/score", "val/loss", "val/dice", "val/dice/thing"}


def test_without_cases_nothing_is_defined():
    nothing = validation_of([], LABELS, EvaluationSettings())
    assert math.isnan(nothing.loss)
    assert not {"val/score", "val/loss", "val/dice"} & set(defined(nothing.values()))
    assert defined({"a": math.nan, "b": math.inf, "c": 0.0}) == {"b": math.inf, "c": 0.0}

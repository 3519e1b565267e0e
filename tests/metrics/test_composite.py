from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from segkit.errors import UsageError
from segkit.metrics.composite import DEFAULT_WEIGHTS, ClassCounts, CompositeSettings, composite_score, weighted_sum
from segkit.metrics.lesion import LesionMatch

PER_CASE = CompositeSettings()
POOLED = CompositeSettings(aggregate="pooled")
SPECIFIC = CompositeSettings(weights={"f1": 0.5, "iou": 0.2, "recall": 0.1, "precision": 0.1, "case_specificity": 0.1})
EVERY = [PER_CASE, POOLED, SPECIFIC]


def row(case, tp, fp, fn, index=1):
    return ClassCounts(case, case, index, tp, fp, fn)


counts = st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
tables = st.lists(st.tuples(counts, counts), min_size=1, max_size=4).map(
    lambda cases: [
        row(f"c{i}", *of_class, k) for i, case in enumerate(cases) for k, of_class in enumerate(case, start=1)
    ]
)


def score(rows, settings=PER_CASE):
    return composite_score(rows, settings).score


def not_above(new, old):
    """new <= old up to rounding; a score that is undefined stays undefined."""
    return (np.isnan(new) and np.isnan(old)) or new <= old + 1e-12


def test_documented_example():
    terms = {"f1": 0.7846, "iou": 0.5627, "recall": 0.8688, "precision": 0.7153}
    assert round(weighted_sum(terms, DEFAULT_WEIGHTS), 4) == 0.7356


def test_by_hand():
    rows = [row("a", 6, 2, 4), row("b", 0, 0, 5), row("healthy", 0, 9, 0)]
    a = 0.4 * 12 / 18 + 0.25 * 6 / 12 + 0.2 * 6 / 10 + 0.15 * 6 / 8
    found = composite_score(rows, PER_CASE)
    assert found.score == pytest.approx(a / 2)
    assert found.per_case == {"a": pytest.approx(a), "b": 0.0}
    pooled = 0.4 * 12 / 32 + 0.25 * 6 / 26 + 0.2 * 6 / 15 + 0.15 * 6 / 17
    assert score(rows, POOLED) == pytest.approx(pooled)


def test_mean_over_cases_then_classes_and_absent_class_named():
    rows = [row("a", 5, 0, 0), row("a", 0, 0, 5, 2), row("b", 5, 0, 0), row("b", 0, 3, 0, 2), row("b", 0, 3, 0, 3)]
    found = composite_score(rows, PER_CASE)
    assert found.score == pytest.approx((1 + 0) / 2)
    assert found.left_out == (3,)
    assert found.by_class == {1: 1.0, 2: 0.0}
    assert found.terms["case_specificity"] == pytest.approx(0.0)


def test_no_reference_anywhere_is_undefined():
    assert np.isnan(score([row("a", 0, 3, 0)]))
    assert np.isnan(score([]))


@examples(max_examples=25, deadline=None, derandomize=True)
@given(rows=tables)
def test_blanking_cases_one_by_one_never_raises_it(rows):
    cases = sorted({r.case_id for r in rows})
    for order in list(permutations(cases))[:3]:
        previous, current = score(rows), list(rows)
        for case in order:
            current = [replace(r, tp=0, fp=0, fn=r.n_reference) if r.case_id == case else r for r in current]
            new = score(current)
            assert not_above(new, previous)
            previous = new
        assert np.isnan(previous) or previous == 0


@pytest.mark.parametrize("settings", EVERY)
@examples(max_examples=25, deadline=None, derandomize=True)
@given(rows=tables, data=st.data())
def test_losing_true_voxels_never_raises_it(settings, rows, data):
    i = data.draw(st.integers(0, len(rows) - 1))
    lost = data.draw(st.integers(0, rows[i].tp))
    worse = [*rows]
    worse[i] = replace(rows[i], tp=rows[i].tp - lost, fn=rows[i].fn + lost)
    assert not_above(score(worse, settings), score(rows, settings))


@pytest.mark.parametrize("settings", EVERY)
@examples(max_examples=25, deadline=None, derandomize=True)
@given(rows=tables, data=st.data(), invented=st.integers(1, 100))
def test_a_false_alarm_never_raises_it(settings, rows, data, invented):
    i = data.draw(st.integers(0, len(rows) - 1))
    worse = [*rows]
    worse[i] = replace(rows[i], fp=rows[i].fp + invented)
    assert not_above(score(worse, settings), score(rows, settings))


@pytest.mark.parametrize("settings", [PER_CASE, POOLED])
@examples(max_examples=25, deadline=None, derandomize=True)
@given(rows=tables)
def test_a_correctly_empty_healthy_case_never_changes_it(settings, rows):
    healthy = [row("healthy", 0, 0, 0, k) for k in (1, 2)]
    assert score([*rows, *healthy], settings) == pytest.approx(score(rows, settings), nan_ok=True)


def test_case_specificity_by_hand():
    settings = CompositeSettings(weights={"f1": 0.8, "case_specificity": 0.2})
    sick = row("a", 6, 2, 4)
    f1 = 12 / 18
    assert score([sick], settings) == pytest.approx(f1)  # no healthy case: its weight goes to the others
    both = [sick, row("h1", 0, 0, 0), row("h2", 0, 1, 0)]
    assert score(both, settings) == pytest.approx(0.8 * f1 + 0.2 * 0.5)


def test_lesion_level_by_hand():
    settings = CompositeSettings(level="lesion")
    lesions = LesionMatch(tp=2, fp=1, fn=2, iou_sum=1.5)
    rows = [replace(row("a", 90, 5, 5), lesions=lesions), replace(row("b", 0, 9, 0), lesions=LesionMatch(0, 1, 0, 0.0))]
    expected = 0.4 * 4 / 7 + 0.25 * 1.5 / 4 + 0.2 * 2 / 4 + 0.15 * 2 / 3
    assert score(rows, settings) == pytest.approx(expected)
    pooled = CompositeSettings(level="lesion", aggregate="pooled")
    assert score(rows, pooled) == pytest.approx(0.4 * 4 / 8 + 0.25 * 1.5 / 4 + 0.2 * 2 / 4 + 0.15 * 2 / 4)


def test_lesion_level_needs_lesions():
    with pytest.raises(ValueError, match="lesions were not matched"):
        score([row("a", 1, 0, 0)], CompositeSettings(level="lesion"))


def test_the_same_case_twice_is_refused():
    with pytest.raises(ValueError, match="two rows"):
        score([row("a", 1, 0, 0), row("a", 1, 0, 0)])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"weights": {"f1": 0.5}}, "sum to 1"),
        ({"weights": {"f1": 1.5, "iou": -0.5}}, "negative"),
        ({"weights": {"f2": 1.0}}, "f2"),
        ({"weights": {"case_specificity": 1.0}}, "case_specificity alone"),
    ],
)
def test_bad_settings_are_named(options, says):
    with pytest.raises(UsageError, match=says):
        CompositeSettings(**options)


@pytest.mark.parametrize("settings", [*EVERY, CompositeSettings(level="lesion")])
def test_a_class_that_was_not_annotated_counts_nowhere(settings):
    """Neither as a case nor as a healthy one; a class annotated in no case is left out and named."""
    whole = [replace(row("a", 6, 2, 4), lesions=LesionMatch(2, 1, 2, 1.5)), row("h", 0, 3, 0)]
    whole[1] = replace(whole[1], lesions=LesionMatch(0, 1, 0, 0.0))
    partly = [ClassCounts("b", "b", 1, 0, 0, 0, annotated=False), ClassCounts("b", "b", 2, 0, 0, 0, annotated=False)]
    alone, with_it = composite_score(whole, settings), composite_score([*whole, *partly], settings)
    assert with_it.score == alone.score
    assert with_it.terms == alone.terms
    assert with_it.per_case == alone.per_case
    assert (alone.left_out, with_it.left_out) == ((), (2,))

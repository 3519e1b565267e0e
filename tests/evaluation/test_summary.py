import json
import math
from dataclasses import replace

import numpy as np
import pytest

from segkit.evaluation import CaseResult, EvaluationSettings, summarise
from segkit.metrics.composite import ClassCounts, CompositeSettings
from segkit.metrics.lesion import LesionSettings
from segkit.types import Labels

LABELS = Labels(names=("background", "liver", "tumour"), ids=(0, 1, 2))


def result(case, liver, tumour, group=None):
    group = group or case
    rows = tuple(ClassCounts(case, group, k, *c) for k, c in ((1, liver), (2, tumour)))
    return CaseResult(case, group, rows)


def six_people():
    rng = np.random.default_rng(0)
    return [result(f"c{i}", tuple(map(int, rng.integers(1, 50, 3))), (5, 5, 5) if i else (0, 7, 0)) for i in range(6)]


def test_numbers_by_hand():
    summary = summarise(
        [result("b", (6, 2, 4), (0, 0, 0)), result("a", (1, 0, 0), (0, 9, 0))], LABELS, EvaluationSettings()
    )
    liver, tumour = summary.classes
    assert liver.metrics["dice"].mean == pytest.approx((12 / 18 + 1) / 2)
    assert liver.metrics["precision"].mean == pytest.approx((6 / 8 + 1) / 2)
    assert (liver.healthy_cases, liver.false_positive_cases) == (0, 0)
    assert (tumour.healthy_cases, tumour.false_positive_cases, tumour.false_positive_voxels) == (2, 1, 9)
    assert math.isnan(tumour.metrics["dice"].mean)
    assert summary.mean["dice"].mean == pytest.approx(liver.metrics["dice"].mean)
    assert summary.composite.left_out == (2,)
    assert summary.score == pytest.approx(np.mean(list(summary.per_case_score.values())))


@pytest.mark.parametrize(
    ("unit", "dimensions", "size"),
    [("mm", 3, "mm^3"), ("mm", 2, "mm^2"), ("pixel", 2, "pixels"), ("pixel", 3, "pixels")],
)
def test_the_smallest_lesion_is_told_in_the_unit_of_sizes(unit, dimensions, size):
    """Under score.level=lesion the voxel summary carries the rule; by voxel it has none."""
    settings = EvaluationSettings(CompositeSettings(level="lesion"), LesionSettings(min_mm3=3.0))
    rules = summarise([], LABELS, settings, unit=unit, dimensions=dimensions).to_dict()["rules"]
    assert rules["lesion"] == settings.lesion.rule(size)
    assert f"and 3 {size};" in rules["lesion"]
    assert "lesion" not in summarise([], LABELS, EvaluationSettings(), unit=unit).to_dict()["rules"]


def test_order_of_cases_does_not_matter():
    cases = six_people()
    forwards, backwards = (summarise(c, LABELS, EvaluationSettings()) for c in (cases, cases[::-1]))
    assert forwards == backwards


def test_json_is_clean_and_an_interval_needs_six_people():
    six = summarise(six_people(), LABELS, EvaluationSettings()).to_dict()
    five = summarise(six_people()[1:], LABELS, EvaluationSettings()).to_dict()
    json.dumps([six, five], allow_nan=False)
    low, high = six["classes"]["liver"]["dice"]["interval"]
    assert low < six["classes"]["liver"]["dice"]["mean"] < high
    assert five["classes"]["liver"]["dice"]["interval"] is None
    assert six["classes"]["tumour"]["dice"]["n"] == 5
    assert six["classes"]["tumour"]["false_positive_cases"] == 1


def test_two_cases_of_one_person_are_one():
    twice = [result(f"{c}{k}", (5, i, 1), (1, 1, 1), group=c) for i, c in enumerate("abcdef") for k in (1, 2)]
    once = [result(f"{c}1", (5, i, 1), (1, 1, 1), group=c) for i, c in enumerate("abcdef")]
    two, one = (summarise(c, LABELS, EvaluationSettings()) for c in (twice, once))
    assert two.mean["dice"][:3] == pytest.approx(one.mean["dice"][:3])
    assert (two.n_cases, two.n_groups) == (12, 6)


def test_flat_names_for_curves():
    flat = summarise(six_people(), LABELS, EvaluationSettings()).flat("val")
    assert {"val/dice", "val/iou", "val/precision", "val/recall", "val/dice/liver", "val/recall/tumour"} <= set(flat)
    assert flat["val/dice"] == pytest.approx((flat["val/dice/liver"] + flat["val/dice/tumour"]) / 2)
    assert flat["val/false_positive_cases"] == 1


def test_table_says_what_a_reader_must_know():
    text = "\n".join(summarise(six_people(), LABELS, EvaluationSettings()).table())
    assert "tumour predicted in 1 of 1 cases without it (7 voxels)" in text
    assert all(word in text for word in ("class", "dice", "iou", "precision", "recall", "liver", "tumour", "mean"))
    few = "\n".join(summarise(six_people()[1:], LABELS, EvaluationSettings()).table())
    assert "no interval below 6 groups; there are 5" in few
    absent = "\n".join(summarise([result("a", (1, 1, 1), (0, 0, 0))], LABELS, EvaluationSettings()).table())
    assert "tumour is in no reference" in absent


def test_nothing_to_summarise():
    summary = summarise([], LABELS, EvaluationSettings())
    assert math.isnan(summary.score)
    assert summary.n_cases == 0


def test_a_class_that_was_not_annotated_is_counted_as_such_and_nowhere_else():
    """Two cases with the tumour, a healthy one with a false alarm, and one in which nobody looked for it."""
    seen = [
        result("a", (6, 2, 4), (4, 0, 4)),
        result("b", (5, 5, 5), (8, 0, 0)),
        result("c", (1, 1, 1), (0, 7, 0)),
    ]
    partly = result("d", (3, 1, 0), (0, 0, 0))
    partly = replace(partly, rows=(partly.rows[0], replace(partly.rows[1], annotated=False)))
    summary = summarise([*seen, partly], LABELS, EvaluationSettings())
    liver, tumour = summary.classes
    assert tumour == replace(summarise(seen, LABELS, EvaluationSettings()).classes[1], not_annotated_cases=1)
    assert (tumour.healthy_cases, tumour.false_positive_cases, tumour.case_specificity) == (1, 1, 0.0)
    assert (tumour.metrics["dice"].n, tumour.metrics["dice"].mean) == (2, pytest.approx((8 / 12 + 1) / 2))
    assert (liver.metrics["dice"].n, liver.not_annotated_cases) == (4, 0)
    assert summary.to_dict()["classes"]["tumour"]["not_annotated_cases"] == 1
    assert "tumour was not annotated in 1 of 4 cases: not applicable there" in "\n".join(summary.table())
    assert "not applicable" in summary.to_dict()["rules"]["annotated"]

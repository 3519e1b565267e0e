"""Rules are kept where cases speak for them, and hardly ever where islands are right or wrong by the toss of a coin."""

import numpy as np
import pytest
from tests.islands import ORGAN, data_set

from segkit.evaluation.postprocessing_choice import ALL_CLASSES, Trials, choose_rules, folds_of
from segkit.evaluation.prediction_regions import CaseFacts, joined, regions_of
from segkit.inference.postprocessing import ClassRule, PostProcessing
from segkit.types import Labels

TWO = Labels(("background", "a", "b"), (0, 1, 2))


def chosen(tables, labels=ORGAN):
    trials = Trials(joined(tables), labels)
    return choose_rules(trials, np.ones(len(tables), dtype=bool))


def drawn_by_hand(pairs, labels=TWO, spacing=(1.0, 1.0)):
    """Regions of (prediction, reference), each a person of its own."""
    return [
        regions_of(*pair, CaseFacts(f"c{k}", f"p{k}", f"h{k}", spacing), num_classes=labels.num_classes)
        for k, pair in enumerate(pairs)
    ]


def square(*places, shape=(24, 24), size=6, label=1):
    mask = np.zeros(shape, dtype=np.int16)
    for row, column in places:
        mask[row : row + size, column : column + size] = label
    return mask


def test_islands_at_random_rarely_come_to_a_rule():
    """In 50 data sets at most every sixth time; by one standard error in place of t at least every fourth."""
    first = [chosen(data_set((1, n), 16, islands=1.5, right=0.5))[1][0] for n in range(50)]
    assert sum(step.kept for step in first) <= 50 / 6
    assert sum(step.gain.mean > step.gain.standard_error for step in first) >= 50 / 4


def test_false_islands_nearly_always_do():
    rules = [chosen(data_set((2, n), 16, islands=1.0, right=0.0))[0] for n in range(15)]
    assert sum(one == PostProcessing((ClassRule("organ", keep="largest"),)) for one in rules) >= 14


def test_islands_that_are_right_stay():
    for n in range(5):
        assert chosen(data_set((3, n), 20, islands=1.5, right=1.0))[0] == PostProcessing()


def test_false_alarms_of_cases_without_the_class_count():
    """No case with the organ has anything to gain; half of the others are false alarms."""
    tables = data_set(4, 40, islands=0.0, right=0.0, healthy=0.5, alarms=0.6)
    trials = Trials(joined(tables), ORGAN)
    rules, steps = choose_rules(trials, np.ones(40, dtype=bool))
    (rule,) = rules.rules
    assert rule.min_mm3 > 0
    assert [step.measure for step in steps if step.kept] == ["false alarms"]
    before, after = trials.outcome(PostProcessing()), trials.outcome(rules)
    assert np.nansum(after.alarm) == 0 < np.nansum(before.alarm) == steps[0].alarms
    np.testing.assert_array_equal(after.dice, before.dice)


def test_to_remove_what_is_right_is_not_worth_a_false_alarm():
    """Islands are right beside the organ and wrong without it: every size that ends alarms costs Dice."""
    for n in range(5):
        tables = data_set((5, n), 40, islands=2.0, right=1.0, healthy=0.5, alarms=0.6)
        rules, steps = chosen(tables)
        assert rules == PostProcessing()
        assert steps


def test_to_remove_everything_is_not_worth_all_false_alarms():
    """Alarms are larger than the structure: a size that ends them would end what is found as well."""
    sick = [(square((2, 2)), square((2, 3 if k % 2 else 2))) for k in range(12)]
    healthy = [(square((2, 2), size=9), square()) for _ in range(30)]
    rules, (step,) = chosen(drawn_by_hand([*sick, *healthy], ORGAN), ORGAN)
    assert rules == PostProcessing()
    assert not step.kept


def test_one_case_that_is_lost_is_a_standard_error_and_two_are_more():
    """What alarms may cost: of twelve found cases one may go, of which Dice and finding lose just a standard error."""
    healthy = [(square((2, 2), size=3), square()) for _ in range(20)]
    for lost, kept in ((0, True), (1, True), (2, False)):
        found = [(square((2, 2)), square((2, 2))) for _ in range(12 - lost)]
        small = [(square((2, 2), size=3), square((2, 2))) for _ in range(lost)]
        rules, _ = chosen(drawn_by_hand([*found, *small, *healthy], ORGAN), ORGAN)
        assert rules.changes == kept
        if kept:
            assert rules.rules == (ClassRule("organ", min_mm3=9.1),)


def ring(*, solid):
    """A frame of class 1; in the reference filled, or not."""
    label = square((4, 4), size=12)
    if not solid:
        label[8:12, 8:12] = 0
    return label


def test_holes_are_filled_where_the_truth_has_none():
    rules, _ = chosen(drawn_by_hand([(ring(solid=False), ring(solid=True))] * 12, ORGAN), ORGAN)
    assert rules == PostProcessing((ClassRule("organ", holes="fill"),))
    rules, steps = chosen(drawn_by_hand([(ring(solid=False), ring(solid=False))] * 12, ORGAN), ORGAN)
    assert rules == PostProcessing()
    assert ": Dice -" in steps[-1].text()


def test_one_step_after_the_other():
    """An island and a hole: each is a step of its own, judged by what it adds."""
    prediction = np.maximum(ring(solid=False), square((18, 18), size=3))
    rules, steps = chosen(drawn_by_hand([(prediction, ring(solid=True))] * 12, ORGAN), ORGAN)
    assert rules == PostProcessing((ClassRule("organ", keep="largest", holes="fill"),))
    assert [step.change for step in steps] == ["holes filled", "largest component kept"]
    # 144 voxels, 16 of them a hole, 9 of the island: Dice 256 / 281, 288 / 297, 1.
    assert [step.gain.mean for step in steps] == pytest.approx([288 / 297 - 256 / 281, 1 - 288 / 297])
    assert all(step.kept and step.gain.standard_error < 1e-12 for step in steps)


def test_classes_have_rules_of_their_own_and_none_may_lose():
    """Islands of `a` are false; `b` has two parts, the smaller of which is right and lies apart from all else."""
    truth = np.maximum(square((2, 2)), 2 * np.maximum(square((2, 8)), square((18, 18), size=4)))
    prediction = np.maximum(truth, square((18, 2), size=3))
    rules, steps = chosen(drawn_by_hand([(prediction, truth)] * 12), TWO)
    assert rules == PostProcessing((ClassRule("a", keep="largest"),))
    together = next(step for step in steps if step.target == ALL_CLASSES)
    assert together.obstacle == "b loses Dice"
    assert not together.kept


def test_all_classes_together_where_no_rule_of_one_class_helps():
    """The false island is larger than the parts of `b` that are right; these lie with `a`, and it does not."""
    body = np.maximum(square((2, 2)), 2 * np.maximum(square((2, 8), size=4), square((8, 2), size=4)))
    tables = drawn_by_hand([(np.maximum(body, square((18, 18), size=5, label=2)), body)] * 12)
    rules, _ = chosen(tables, TWO)
    assert rules == PostProcessing(foreground="largest")
    np.testing.assert_array_equal(Trials(joined(tables), TWO).outcome(rules).dice, 1.0)


def test_of_instances_only_sizes_are_tried():
    nuclei = Labels(("background", "object"), (0, 1), "instances")
    prediction = np.maximum(ring(solid=False), square((0, 20), size=2))
    rules, steps = chosen(drawn_by_hand([(prediction, ring(solid=True))] * 12, nuclei), nuclei)
    assert rules == PostProcessing((ClassRule("object", min_mm3=4.1),))
    assert [step.change for step in steps] == ["below 4.1 mm^3 removed"]


def test_a_class_in_too_few_cases_has_no_rule():
    wrong = (np.maximum(square((2, 2)), square((18, 18), size=3)), square((2, 2)))
    for count, changes in ((9, False), (10, True)):
        assert chosen(drawn_by_hand([wrong] * count, ORGAN), ORGAN)[0].changes == changes
    five = [regions_of(*wrong, CaseFacts(f"c{k}", f"p{k % 5}", f"h{k}", (1.0, 1.0)), num_classes=2) for k in range(20)]
    assert not chosen(five)[0].changes


def test_sizes_lie_just_above_quantiles_of_false_components():
    """False ones of 1, 4 and 9 voxels of 2 mm^2, one each in three cases; what touches the truth is not false."""
    truth = square((2, 2))
    pairs = [(np.maximum(square((3, 3)), square((18, 18), size=size)), truth) for size in (1, 2, 3)]
    trials = Trials(joined(drawn_by_hand(pairs, ORGAN, spacing=(1.0, 2.0))), ORGAN)
    everybody = np.ones(3, dtype=bool)
    assert trials.sizes(0, everybody, "full") == [8.1, 19.0]
    assert trials.sizes(0, np.array([True, False, False]), "full") == [2.1]
    assert Trials(joined(drawn_by_hand([(truth, truth)], ORGAN)), ORGAN).sizes(0, everybody[:1], "full") == []


def test_a_size_removes_the_component_that_it_was_made_from():
    """Spacings in single precision: nine voxels come to a little more or less than a round number of mm^2."""
    truth = square((2, 2))
    pair = (np.maximum(truth, square((18, 18), size=3)), truth)
    for voxel in (0.9, 1.1, 10 / 9, 11 / 9, 100 / 9, 1 / 9):
        spacing = (float(np.float32(voxel)), 1.0)
        trials = Trials(joined(drawn_by_hand([pair], ORGAN, spacing)), ORGAN)
        (size,) = trials.sizes(0, np.ones(1, dtype=bool), "full")
        after = trials.outcome(PostProcessing((ClassRule("organ", min_mm3=size),)))
        assert after.predicted.tolist() == [[36.0]]


def test_what_was_not_annotated_says_nothing():
    """The island would be false, were the class annotated in these cases."""
    pair = (np.maximum(square((2, 2)), square((18, 18), size=3)), square((2, 2)))
    tables = [
        regions_of(*pair, CaseFacts(f"c{k}", f"p{k}", f"h{k}", (1.0, 1.0), frozenset({2})), num_classes=3)
        for k in range(12)
    ]
    outcome = Trials(joined(tables), TWO).outcome(PostProcessing())
    assert np.isnan(outcome.dice).all()
    assert np.isnan(outcome.alarm[:, 0]).all()
    assert not outcome.alarm[:, 1].any()
    assert chosen(tables, TWO) == (PostProcessing(), [])


def test_people_are_left_out_as_a_whole():
    groups = [f"p{k % 7}" for k in range(20)]
    folds = folds_of(groups, 3)
    assert sum(fold.astype(int) for fold in folds).tolist() == [1] * 20
    assert [{groups[k] for k in np.flatnonzero(fold)} for fold in folds] == [
        {"p0", "p3", "p6"}, {"p1", "p4"}, {"p2", "p5"}
    ]  # fmt: skip
    assert len(folds_of(groups, 10)) == 7

"""What a fit says of itself: the optimistic gain, and that of people who were left out."""

import json

import numpy as np
import pytest
from tests.islands import ORGAN, data_set

from segkit.errors import DataError
from segkit.evaluation.postprocessing_choice import Trials, choose_rules
from segkit.evaluation.postprocessing_fit import fit_rules
from segkit.evaluation.prediction_regions import joined
from segkit.inference.postprocessing import ClassRule, PostProcessing


def test_false_islands():
    tables = data_set(1, 24, people=8, islands=1.0, right=0.0)
    fit = fit_rules(tables, ORGAN)
    (organ,) = fit.classes
    assert fit.rules == PostProcessing((ClassRule("organ", keep="largest"),))
    assert (fit.n_cases, fit.n_groups) == (24, 8)
    assert (organ.before.n, organ.before.n_groups) == (24, 8)
    assert organ.rule == "largest component kept"
    assert organ.kept_in_folds == (8, 8)
    # All folds choose the same rule, so that both gains are one number.
    assert organ.cross_validated == organ.optimistic
    assert organ.optimistic.low > 0
    assert organ.missed == 0


def test_the_gain_of_people_left_out_is_by_rules_that_never_saw_them():
    """Held against rules that are chosen from tables without the person, and applied to the person's cases."""
    tables = data_set(3, 14, islands=0.4, right=0.15)
    (organ,) = fit_rules(tables, ORGAN).classes
    names = sorted({table.cases[0].group for table in tables})
    gains, kept = [], 0
    for fold in range(10):
        out = {name for place, name in enumerate(names) if place % 10 == fold}
        others = [table for table in tables if table.cases[0].group not in out]
        rules, _ = choose_rules(Trials(joined(others), ORGAN), np.ones(len(others), dtype=bool))
        kept += rules.changes
        left = Trials(joined([table for table in tables if table.cases[0].group in out]), ORGAN)
        gains += (left.outcome(rules).dice - left.outcome(PostProcessing()).dice)[:, 0].tolist()
    assert organ.cross_validated.mean == pytest.approx(np.mean(gains), abs=1e-12)
    assert organ.kept_in_folds == (kept, 10)
    assert 0 < kept < 10  # else this would say nothing


@pytest.mark.parametrize("lucky", [11, 15, 29])
def test_the_gain_on_the_cases_that_chose_is_optimistic(lucky):
    """The first three of 150 data sets with islands at random that come to a rule: people left out take it back."""
    (organ,) = fit_rules(data_set((1, lucky), 16, islands=1.5, right=0.5), ORGAN).classes
    assert organ.optimistic.mean > 0.01
    assert organ.cross_validated.mean < 0
    kept, folds = organ.kept_in_folds
    assert kept < folds


def test_false_alarms_are_counted_before_after_and_by_rules_of_others():
    fit = fit_rules(data_set(4, 40, islands=0.0, right=0.0, healthy=0.5, alarms=0.6), ORGAN)
    (organ,) = fit.classes
    before, after, apart = organ.alarms
    assert organ.healthy == 40 - organ.before.n
    assert 0 == after <= apart < before <= organ.healthy
    assert organ.optimistic.mean == 0
    lines = "\n".join(fit.table())
    assert f"{before} -> 0 of {organ.healthy}" in lines
    assert "kept: below" in lines


def test_rules_that_are_not_kept_are_told_with_what_they_lacked():
    fit = fit_rules(data_set(3, 20, islands=1.5, right=1.0), ORGAN)
    assert not fit.rules.changes
    lines = list(fit.table())
    assert "organ: as predicted" in lines
    assert any(line.startswith("  not kept: ") and "standard errors, 1.7 needed" in line for line in lines)


def test_it_can_be_written_as_json():
    fit = fit_rules(data_set(1, 24, people=8, islands=1.0, right=0.0), ORGAN, unit="pixels")
    stored = json.loads(json.dumps(fit.to_dict()))
    organ = stored["classes"]["organ"]
    assert organ["steps"][0]["kept"]
    assert organ["gain_optimistic"]["n"] == 24
    assert stored["unit"] == "pixels"
    assert "optimistic" in stored["rules"]


@pytest.mark.parametrize(("cases", "people", "why"), [(9, 9, "9 cases of 9"), (20, 5, "20 cases of 5")])
def test_too_few_are_refused(cases, people, why):
    with pytest.raises(DataError, match="10 cases of 6 people") as raised:
        fit_rules(data_set(1, cases, people=people, islands=1.0, right=0.0), ORGAN)
    assert why in raised.value.why
    assert "cross-validation" in raised.value.mend

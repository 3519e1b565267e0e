"""Tables of an evaluation as `evaluate` writes them, with the Dice that a test wants."""

import math

from segkit.evaluation import CaseResult, EvaluationSettings, summarise, write_per_case, write_summary
from segkit.metrics.composite import ClassCounts
from segkit.types import Labels

VOXELS = 1000


def write_tables(folder, dice, *, people=None, classes=("front", "back"), voxels=VOXELS, settings=None, **facts):
    """Write per_case.csv and summary.json and return the folder.

    Args:
        folder: Where to.
        dice: Case id to Dice of each class, in whole shares of `voxels`; NaN: the class is not in the reference.
        people: Case id to person; each its own if not given.
        classes: Names.
        voxels: Of each reference, and of each prediction.
        settings: Of the evaluation.
        facts: What stands before the numbers, over {"label": "test", "subset": "test", "seen_cases": []}.
    """
    labels = Labels(("background", *classes), tuple(range(len(classes) + 1)))
    results = [
        CaseResult(case, person, tuple(_counts(case, person, k, v, voxels) for k, v in enumerate(values, start=1)))
        for case, values in dice.items()
        for person in [(people or {}).get(case, case)]
    ]
    settings = settings or EvaluationSettings()
    facts = {"label": "test", "run": folder.name, "subset": "test", "seen_cases": [], **facts}
    write_per_case(folder / "per_case.csv", results, labels, note="SEEN CASES" if facts["seen_cases"] else "")
    write_summary(folder / "summary.json", summarise(results, labels, settings), facts=facts)
    return folder


def _counts(case, person, index, dice, voxels):
    tp = 0 if math.isnan(dice) else round(dice * voxels)
    wrong = 0 if math.isnan(dice) else voxels - tp
    return ClassCounts(case, person, index, tp, wrong, wrong)

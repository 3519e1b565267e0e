"""Post-processing fitted on an evaluation of unseen cases, printed, and stored for `predict`."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from segkit.evaluation.native import Average
from segkit.evaluation.postprocessing_fit import PostProcessingFit, fit_rules
from segkit.evaluation.prediction_regions import CaseFacts, Regions
from segkit.runs.files import write_json
from segkit.runs.model_identity import Models
from segkit.runs.postprocessing import FILE
from segkit.types import Labels


def fit_postprocessing(
    cases: Iterable[Regions],
    labels: Labels,
    *,
    models: Models,
    average: Average = "logits",
    cases_are: str,
    output: Path,
    unit: str = "mm^3",
) -> PostProcessingFit:
    """Choose the rules, print what they are worth, write both.

    Args:
        cases: `regions_of_case` of each case that was evaluated; asked for one after the other, so that no mask needs
            to outlive its case. None of the cases was in the training of the model that predicted it.
        labels: Class names.
        models: What decides the masks that the rules are for: `models_of` the members.
        average: Likewise: what was resampled, and of several is averaged.
        cases_are: What kind of cases they are, and what is not unseen about them.
        output: Folder of postprocessing.json: the run's, or that of the runs of an ensemble.
        unit: Of sizes; see `size_unit`.

    Raises:
        DataError: Fewer than ten cases of six people.
    """
    tables = list(cases)
    fit = fit_rules(tables, labels, unit=unit)
    output.mkdir(parents=True, exist_ok=True)
    facts = [case for table in tables for case in table.cases]
    write_json(output / FILE, _record(fit, facts, models, average, cases_are))
    people = f"{fit.n_cases} cases of {fit.n_groups} groups"
    print(f"post-processing fitted on {people}; {cases_are}")
    for line in fit.table():
        print(line)
    print(f"{fit.rules.text(unit)}: {output / FILE}")
    return fit


def _record(
    fit: PostProcessingFit, cases: Sequence[CaseFacts], models: Models, average: Average, cases_are: str
) -> dict[str, Any]:
    return {
        "postprocessing": fit.rules.to_json(),
        "models": [dict(model) for model in models],
        "average": average,
        "fit": {"cases_are": cases_are} | fit.to_dict(),
        "fitting_cases": [
            {"case_id": case.case_id, "group": case.group, "content_hash": case.content_hash} for case in cases
        ],
        "note": "Research software, not a medical device.",
    }

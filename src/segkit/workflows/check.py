"""`check`: every fault of a data set in one pass; opens all files, those of the test cases too."""

import json
from collections.abc import Mapping
from typing import Any

from segkit.data.checks import check_cases
from segkit.data.findings import Finding, counts, describe
from segkit.data.groups import groups_are_known
from segkit.data.labels import infer_labels
from segkit.data.layouts import Dataset, discover
from segkit.data.pipeline import preparation_workers
from segkit.data.sample import sample_root
from segkit.errors import DataError
from segkit.types import Labels


def run(config: Mapping[str, Any]) -> list[Finding]:
    """Print all findings of `config["data"]`.

    Args:
        config: Resolved configuration; `json: true` prints a JSON list instead of text.

    Returns:
        The findings, where none is an error.

    Raises:
        DataError: There is an error among them (exit 65); they are printed before.
    """
    data = config["data"]
    dataset = discover(data["root"] or sample_root(), layout=data["layout"], groups=data["groups"])
    findings: list[Finding] = []
    labels: Labels | None = None
    if dataset.declared_labels is not None:
        try:
            labels = infer_labels(dataset, (), kind=data["labels"], ignore=data["ignore_label"])
        except DataError as error:
            findings.append(Finding.of(error))
    findings += check_cases(
        dataset.cases,
        labels,
        dataset=dataset,
        kind=data["labels"],
        ignore=data["ignore_label"],
        workers=preparation_workers(dataset.cases),
    )
    if config.get("json"):
        print(json.dumps([finding.to_json() for finding in findings], indent=1))
    else:
        print(_heading(dataset))
        if findings:
            print(describe(findings))
        print(counts(findings))
    errors = sum(finding.level == "error" for finding in findings)
    if errors:
        raise DataError(
            f"{errors} error{'' if errors == 1 else 's'} in the data set '{dataset.name}'",
            where=str(dataset.root),
            mend="mend what is listed above, then run the check again",
        )
    return findings


def _heading(dataset: Dataset) -> str:
    people = f"{len({case.group for case in dataset.cases})} people" if groups_are_known(dataset.cases) else "no groups"
    channels = ", ".join(dataset.channels) or "as in the files"
    return f"{dataset.name}: {len(dataset.cases)} cases, {people}, layout {dataset.layout}, channels {channels}"

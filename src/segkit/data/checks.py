"""Every fault of a data set in one pass."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from segkit.data.facts import CaseFacts, facts_of
from segkit.data.findings import Finding, raise_if_errors
from segkit.data.groups import groups_are_known
from segkit.data.labels import labels_of_values, undeclared
from segkit.data.layouts import Dataset
from segkit.data.likely_pairs import likely_pairs
from segkit.data.names import shown_id
from segkit.data.parallel import parallel_map
from segkit.errors import DataError
from segkit.planning.make_plan import sided
from segkit.types import Case, Labels

__all__ = ["Finding", "check_cases", "raise_if_errors"]


def check_cases(
    cases: Sequence[Case],
    labels: Labels | None = None,
    *,
    dataset: Dataset | None = None,
    kind: Literal["auto", "semantic", "instances"] = "auto",
    ignore: int | None = None,
    workers: int = 0,
) -> list[Finding]:
    """Read every file of the cases and tell all that is wrong, odd or worth knowing.

    Args:
        cases: The cases to open; give those of training and tuning where the test cases must stay closed.
        labels: What the values mean; None: by the rule of `labels.infer_labels` on the values found.
        dataset: For the declared channels and what lies beside the cases.
        kind: See `infer_labels`; used where `labels` is None.
        ignore: Value of voxels that nobody annotated; likewise.
        workers: Processes to read with; 0: this one.

    Returns:
        Findings, those of the whole data set first, then by case.
    """
    findings = _names(cases) + (_beside(dataset) if dataset else [])
    facts = parallel_map(facts_of, cases, workers=workers)
    for fact in facts:
        findings += fact.findings
    findings += _dimensions(facts) + _channels(facts, dataset)
    findings += _label_values(facts, labels, kind=kind, ignore=ignore) + _annotated(facts, labels)
    findings += _copies(facts) + _people(facts)
    return findings


def _names(cases: Sequence[Case]) -> list[Finding]:
    """Ids that are there twice, or that differ only in case."""
    if not cases:
        return [Finding("error", "", "", "there is no case", "the data set is empty", "data.root=/path/to/images")]
    by_id: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_id[case.case_id].append(case)
    findings = [
        Finding(
            "error",
            case_id,
            str(same[1].images[0]),
            "two images have one case id",
            f"{', '.join(case.images[0].name for case in same)}",
            "keep one of them, or rename",
        )
        for case_id, same in by_id.items()
        if len(same) > 1
    ]
    lower: dict[str, str] = {}
    for case_id in by_id:
        if (other := lower.setdefault(case_id.lower(), case_id)) != case_id:
            findings.append(
                Finding(
                    "warning",
                    case_id,
                    "",
                    "two case ids differ only in upper and lower case",
                    f"'{other}' and '{case_id}'",
                    "rename one: some drives keep only one of their predictions",
                )
            )
    return findings


def _beside(dataset: Dataset) -> list[Finding]:
    findings = [
        Finding("warning", "", str(path), "a label without an image", "", "add the image, or take the label out")
        for path in dataset.orphans
    ]
    findings += [
        Finding("note", "", str(path), "a file that is no image is left aside", f"'{path.suffix}' is not read")
        for path in dataset.ignored
    ]
    if strangers := sorted(set(dataset.annotated) - {case.case_id for case in dataset.cases}):
        findings.append(
            Finding(
                "warning",
                "",
                str(dataset.root / "dataset.json"),
                "annotated classes are declared for cases that are not there",
                f"{len(strangers)} cases, such as {', '.join(map(shown_id, strangers[:3]))}",
                "write the ids as the image files have them",
            )
        )
    if names := sided(tuple(dataset.declared_labels or ())):
        findings.append(
            Finding(
                "note",
                "",
                str(dataset.root),
                "class names look like left and right",
                f"{', '.join(names)}: images are not mirrored along the patient's left-right axis",
                "data.laterality=none if left and right are one class",
            )
        )
    return findings


def _dimensions(facts: Sequence[CaseFacts]) -> list[Finding]:
    ranks = Counter(len(fact.shape) for fact in facts if fact.shape)
    if len(ranks) < 2:
        return []
    common = ranks.most_common(1)[0][0]
    return [
        Finding(
            "error",
            fact.case.case_id,
            str(fact.case.images[0]),
            "2D and 3D images are mixed",
            f"size {fact.shape}, where {ranks[common]} cases have {common} axes (one slice counts as 2D)",
            "make two data sets of them",
        )
        for fact in facts
        if fact.shape and len(fact.shape) != common
    ]


def _channels(facts: Sequence[CaseFacts], dataset: Dataset | None) -> list[Finding]:
    counts = Counter(fact.channels for fact in facts if fact.channels)
    if not counts:
        return []
    declared = dataset.channels if dataset else ()
    expected = len(declared) or counts.most_common(1)[0][0]
    reason = f"declared are {', '.join(declared)}" if declared else f"{counts[expected]} cases have {expected}"
    findings = [
        Finding(
            "error",
            fact.case.case_id,
            str(fact.case.images[0]),
            "the number of channels differs",
            f"{fact.channels} channels in {', '.join(path.name for path in fact.case.images)}; {reason}",
            "add the missing channel, or save all images alike (grey or RGB)",
        )
        for fact in facts
        if fact.channels and fact.channels != expected
    ]
    if not declared and any(fact.stacked for fact in facts):
        first = next(fact for fact in facts if fact.stacked)
        findings.append(
            Finding(
                "error",
                first.case.case_id,
                str(first.case.images[0]),
                "a fourth axis that nobody declared",
                f"{first.channels} volumes in one file: channels, time points or directions",
                'name them in dataset.json: {"channel_names": {"0": "T1", "1": "FLAIR"}}',
            )
        )
    return findings


def _label_values(
    facts: Sequence[CaseFacts],
    labels: Labels | None,
    *,
    kind: Literal["auto", "semantic", "instances"],
    ignore: int | None,
) -> list[Finding]:
    """Values that nothing explains, classes that never occur, and cases without foreground."""
    values = {fact.case.case_id: fact.values for fact in facts if fact.values is not None}
    if not values:
        return []
    if labels is None:
        try:
            labels = labels_of_values(values, kind=kind, ignore=ignore)
        except DataError as error:
            return [Finding.of(error)]
    findings = []
    for fact in facts:
        if unknown := undeclared(fact.values or (), labels):
            findings.append(
                Finding(
                    "error",
                    fact.case.case_id,
                    str(fact.case.label),
                    "the label holds a value that is not declared",
                    f"found {_listed(unknown)}; declared are "
                    + ", ".join(f"{name} {value}" for name, value in zip(labels.names, labels.ids, strict=True)),
                    "add the class to dataset.json, set data.ignore_label, or mend the label",
                )
            )
    background = {labels.ids[0], labels.ignore_id}
    empty = [case_id for case_id, found in values.items() if not set(found) - background]
    if len(empty) == len(values):
        return [
            *findings,
            Finding(
                "error",
                "",
                "",
                "no foreground in any case",
                f"{len(values)} labels hold nothing but background",
                "check that these are the labels, and that they were not saved as probabilities or cut off",
            ),
        ]
    findings += [
        Finding("note", case_id, "", "no foreground in this case", "it can show false alarms only") for case_id in empty
    ]
    if labels.kind == "semantic":
        occurring = Counter(value for found in values.values() for value in found)
        findings += [
            Finding(
                "warning",
                "",
                "",
                f"class '{name}' occurs in {occurring[value]} of {len(values)} cases",
                "it can neither be learnt nor scored well",
                "add cases, or merge the class with another",
            )
            for name, value in zip(labels.foreground, labels.ids[1:], strict=True)
            if occurring[value] < min(3, len(values))
        ]
    return findings


def _annotated(facts: Sequence[CaseFacts], labels: Labels | None) -> list[Finding]:
    """Classes that some cases lack because nobody annotated them there."""
    partly = [fact for fact in facts if fact.case.annotated is not None]
    if labels is None or not partly:
        return []
    values = dict(zip(labels.foreground, labels.ids[1:], strict=True))
    findings = []
    lacking: Counter[str] = Counter()
    for fact in partly:
        missing = [name for name in labels.foreground if name not in (fact.case.annotated or ())]
        lacking.update(missing)
        if drawn := [name for name in missing if values[name] in (fact.values or ())]:
            findings.append(
                Finding(
                    "error",
                    fact.case.case_id,
                    str(fact.case.label),
                    "the label holds a class that is declared as not annotated",
                    f"it holds {', '.join(drawn)}; annotated are {', '.join(fact.case.annotated or ())}",
                    "add the class to the case's 'annotated' in dataset.json, or take it out of the label",
                )
            )
    findings += [
        Finding(
            "note",
            "",
            "",
            f"class '{name}' is not annotated in {lacking[name]} of {len(facts)} cases",
            "training takes background there as that or the class; evaluation takes the class as not applicable",
        )
        for name in labels.foreground
        if lacking[name]
    ]
    return findings


def _copies(facts: Sequence[CaseFacts]) -> list[Finding]:
    """Equal voxels under two ids: one of them may train what the other tests."""
    first: dict[str, CaseFacts] = {}
    findings = []
    for fact in facts:
        if not fact.digest:
            continue
        other = first.setdefault(fact.digest, fact)
        if other is not fact and other.case.group != fact.case.group:
            findings.append(
                Finding(
                    "warning",
                    fact.case.case_id,
                    str(fact.case.images[0]),
                    "two cases have the same image",
                    f"the voxels equal those of case {other.case.case_id}, which is another group",
                    "take one out, or put both into one group: data.groups=groups.csv",
                )
            )
    return findings


def _people(facts: Sequence[CaseFacts]) -> list[Finding]:
    if not facts or groups_are_known([fact.case for fact in facts]):
        return []
    found = likely_pairs({fact.case.case_id: fact.median for fact in facts if fact.digest and fact.median})
    if found is None:
        return [
            Finding(
                "note",
                "",
                "",
                "no groups are given",
                "every case counts as a person of its own; a score is too good where that is not so",
                "data.groups=groups.csv with the columns case,group, or data.groups='regex:(.+)_.*'",
            )
        ]
    return [
        Finding(
            "warning",
            "",
            "",
            "neighbouring cases look like two of one person",
            f"{len(found.pairs)} of {found.compared} pairs of neighbouring ids agree in intensity within 10 %, where "
            f"{found.by_chance:.0%} of all pairs do: "
            + ", ".join(f"{a} + {b}" for a, b in found.pairs[:5])
            + (f" and {len(found.pairs) - 5} more" if len(found.pairs) > 5 else ""),
            "data.groups=groups.csv with the columns case,group; else a person may train and test",
        )
    ]


def _listed(values: Iterable[int]) -> str:
    shown = list(values)
    return ", ".join(map(str, shown[:8])) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")

"""Whether a data set is still the one that a run was begun on.

The run's roles hold the contents of what it has seen. Training on with other voxels under the same name, or without
some, would make the n-th sample another one than it was: that is refused by name. Files of test cases stay closed.
"""

from collections.abc import Sequence
from pathlib import Path

from segkit.data.annotated import partly_annotated
from segkit.data.findings import Finding
from segkit.data.layouts import Dataset
from segkit.data.splits import Roles, assert_disjoint
from segkit.data.store import Store
from segkit.errors import UsageError

_NAMED = 10


def compare_with_run(dataset: Dataset, roles: Roles, store: Store, *, all_dealt: bool) -> list[Finding]:
    """Refuse a data set whose seen cases are others than the run's; tell of what else has changed.

    Args:
        dataset: As its names tell now.
        roles: Of the run, with the contents of the cases it has seen, where they were written.
        store: Remembers contents.
        all_dealt: Whether every case had a role when the run began: then one without was added.

    Returns:
        Warnings on test and held-out cases that are gone, and on cases without a role.

    Raises:
        DataError: A file cannot be read; or one person is in two roles now.
        UsageError: A training or tuning case is gone, its image or label was replaced, or other classes are declared as
            annotated in it; all of them are named.
    """
    now = {case.case_id: case for case in dataset.cases}
    seen = [*roles.train, *roles.tuning]
    gone = [case_id for case_id in seen if case_id not in now]
    image, label, annotated = [], [], []
    partly = partly_annotated(dataset.cases, dataset.declared_labels)
    for case_id in (one for one in seen if one in now):
        case = now[case_id]
        if roles.annotated is not None and roles.annotated.get(case_id) != partly.get(case_id):
            annotated.append(case_id)
        if not all(path.exists() for path in (*case.images, *([case.label] if case.label else []))):
            continue  # the check of the files tells it, with the other faults
        if roles.content_hashes.get(case_id, held := store.content_hash(case.images)) != held:
            image.append(case_id)
        if roles.label_hashes.get(case_id, held := _hash(case.label, store)) != held:
            label.append(case_id)
    changes = [
        ("removed", gone),
        ("image replaced", image),
        ("label replaced", label),
        ("other classes declared as annotated", annotated),
    ]
    if diff := [f"{what}: {_listed(ids)}" for what, ids in changes if ids]:
        raise UsageError(
            "The data set has changed since this run began.",
            where=str(dataset.root),
            why="; ".join(diff),
            mend="put the files back as they were, or give another run_name to train on the changed data",
        )
    assert_disjoint(roles, dataset.cases)
    findings = []
    for what, unseen in (("test", roles.test), ("held-out", roles.held_out)):
        if missing := [case_id for case_id in unseen if case_id not in now]:
            told = f"{what} cases of this run are gone"
            findings.append(Finding("warning", "", str(dataset.root), told, _listed(missing)))
    known = {*seen, *roles.test, *roles.held_out}
    if all_dealt and (added := [case_id for case_id in now if case_id not in known]):
        findings.append(
            Finding(
                "warning",
                "",
                str(dataset.root),
                "cases were added since this run began: they have no role in it and are not used",
                _listed(added),
                "another run_name trains on them too",
            )
        )
    return findings


def _hash(path: Path | None, store: Store) -> str:
    return "" if path is None else store.file_hash(path)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more

"""From a configuration to prepared cases: open, plan, prepare. What `plan`, `prepare` and `train` share.

No function here opens a file of a test case, or of one that is held out: they are known by name only until `evaluate`
reads them.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from segkit.data.annotated import partly_annotated
from segkit.data.changed import compare_with_run
from segkit.data.checks import check_cases
from segkit.data.findings import Finding, raise_if_errors
from segkit.data.labels import infer_labels
from segkit.data.layouts import Dataset, discover
from segkit.data.sample import sample_root
from segkit.data.splits import OF_A_FOLD, ROLES, Role, Roles, assign_roles
from segkit.data.store import Store
from segkit.data.stored_case import StoredCase
from segkit.errors import DataError
from segkit.planning.device import DeviceFacts, timed, usable_cores
from segkit.planning.fingerprint import CaseFacts, Fingerprint, pool_facts
from segkit.planning.make_plan import make_plan
from segkit.planning.plan import Plan
from segkit.types import Case, Labels

OnDone = Callable[[int, int], None]

COLOURS = ("red", "green", "blue")
"""Channels of a colour picture that nobody named."""
_PLAN_KEYS = (
    "spacing",
    "normalisation",
    "patch_size",
    "batch_size",
    "features",
    "strides",
    "kernel_sizes",
    "blocks_per_stage",
    "batch_dice",
    "channels_last",
    "compile",
    "flip_axes",
)
_MANY_BYTES = 64 * 2**20
"""Below this a data set is prepared before a pool of processes would have started."""


@dataclass(frozen=True)
class Opened:
    """A data set whose cases have roles and whose label values have names.

    Args:
        dataset: What the names of the files tell.
        roles: Who trains, tunes, tests.
        labels: From declaration, or from the labels of the training and tuning cases.
        findings: Warnings and notes of the check of the training and tuning cases.
        store: Where prepared cases are.
    """

    dataset: Dataset
    roles: Roles
    labels: Labels
    findings: tuple[Finding, ...]
    store: Store

    def cases(self, role: Role) -> tuple[Case, ...]:
        """The cases of a role; of a resumed run's test and held-out cases those that are still there."""
        by_id = {case.case_id: case for case in self.dataset.cases}
        may_lack = role in ("test", "held_out")
        return tuple(by_id[case_id] for case_id in self.roles.of(role) if not may_lack or case_id in by_id)

    @property
    def seen(self) -> tuple[Case, ...]:
        """Training and tuning cases: the only ones that are opened."""
        return self.cases("train") + self.cases("tuning")

    @property
    def people(self) -> dict[str, tuple[int, int]]:
        """Role to (cases, groups); nobody is held out unless somebody is."""
        cases = {role: self.cases(role) for role in ROLES}
        return {
            role: (len(of), len({case.group for case in of})) for role, of in cases.items() if of or role in OF_A_FOLD
        }


@dataclass(frozen=True)
class Prepared:
    """Prepared training and tuning cases.

    Args:
        train: Training cases.
        tuning: Tuning cases.
        roles: With the content hashes of both and what was annotated in them, for split.json.
    """

    train: tuple[StoredCase, ...]
    tuning: tuple[StoredCase, ...]
    roles: Roles

    @property
    def annotated(self) -> tuple[frozenset[int] | None, ...]:
        """The foreground classes annotated in each case, by index; None: all of them."""
        return tuple(case.annotated for case in (*self.train, *self.tuning))


def open_dataset(config: Mapping[str, Any], *, roles: Roles | None = None) -> Opened:
    """Find the cases, give them roles, check those of training and tuning, name the label values.

    Args:
        config: Resolved configuration; its `data` and `paths.cache` are read.
        roles: Those of a run that is resumed; None: dealt by `data.split`.

    Raises:
        DataError: For every fault of the data at once.
        UsageError: The cases that a resumed run has seen are gone or have other contents.
    """
    data = config["data"]
    dataset = discover(data["root"] or sample_root(), layout=data["layout"], groups=data["groups"])
    if data.get("name"):
        dataset = replace(dataset, name=data["name"])
    store = Store(Path(config["paths"]["cache"]).expanduser().absolute())
    findings: list[Finding] = []
    if roles is None:
        roles = _deal(dataset, data)
    else:
        all_dealt = data["split"]["file"] is None and data.get("max_cases") is None
        findings = compare_with_run(dataset, roles, store, all_dealt=all_dealt)
    opened = Opened(dataset, roles, Labels(("background",), (0,)), (), store)
    findings += _check(opened, data)
    raise_if_errors(findings)
    labels = _labels(opened, data)
    return replace(opened, labels=labels, findings=tuple(findings))


def fingerprint_dataset(opened: Opened, *, on_done: OnDone | None = None) -> Fingerprint:
    """The fingerprint of the training and tuning cases.

    Raises:
        DataError: Where cases have different numbers of channels.
    """
    seen = opened.seen
    facts = opened.store.facts_all(seen, opened.labels, workers=preparation_workers(seen), on_done=on_done)
    return pool_facts(facts, channels=opened.dataset.channels or _channel_names(seen, facts))


def plan_dataset(
    opened: Opened, config: Mapping[str, Any], device: DeviceFacts, *, on_done: OnDone | None = None
) -> Plan:
    """The plan, with every value that the configuration gives.

    Args:
        opened: The data set.
        config: `plan`, and of `trainer` and `validation` what a plan holds; null means "by rule".
        device: What to plan for; timed here where the precision is to be chosen.
        on_done: Told of progress through the cases.

    Raises:
        DataError: For cases that do not fit together, or without any foreground.
        UsageError: For values that do not fit the data.
    """
    plan, trainer, validation = config["plan"], config.get("trainer", {}), config.get("validation", {})
    overrides = {key: plan.get(key) for key in _PLAN_KEYS}
    overrides |= {key: trainer.get(key) for key in ("steps_per_epoch", "max_epochs", "precision", "ema_decay")}
    overrides |= {
        "validation_every_n_epochs": validation.get("every_n_epochs"),
        "tile_batch": validation.get("tile_batch"),
    }
    if overrides["precision"] is None:
        device = timed(device)
    return make_plan(
        fingerprint_dataset(opened, on_done=on_done),
        opened.labels,
        name=plan["name"],
        device=device,
        overrides=overrides,
        laterality=config["data"]["laterality"],
        num_tuning=len(opened.roles.tuning),
        max_steps=trainer.get("max_steps"),
    )


def prepare_dataset(
    opened: Opened, plan: Plan, *, needs: frozenset[str] = frozenset(), on_done: OnDone | None = None
) -> Prepared:
    """Prepare the training and tuning cases, or find them prepared.

    Args:
        opened: The data set.
        plan: Spacing, normalisation, labels.
        needs: `loss.needs`.
        on_done: Told of progress through the cases.

    Raises:
        DataError: For files that cannot be used.
    """
    seen = opened.seen
    entries = opened.store.prepare_all(seen, plan, needs=needs, workers=preparation_workers(seen), on_done=on_done)
    num_train = len(opened.roles.train)
    hashes = {entry.case_id: entry.content_hash for entry in entries}
    labels = {case.case_id: opened.store.file_hash(case.label) for case in seen if case.label is not None}
    annotated = partly_annotated(seen, opened.dataset.declared_labels)
    roles = replace(opened.roles.with_hashes(hashes, labels), annotated=annotated)
    return Prepared(tuple(entries[:num_train]), tuple(entries[num_train:]), roles)


def preparation_workers(cases: tuple[Case, ...], *, cores: int | None = None) -> int:
    """Processes to prepare with: none for small data, else one a core."""
    files = [path for case in cases for path in (*case.images, *([case.label] if case.label else []))]
    total = sum(path.stat().st_size for path in files if path.exists())
    return 0 if total < _MANY_BYTES else min(cores or usable_cores(), len(cases))


def loader_workers(asked: int | str, device: DeviceFacts) -> int:
    """Loader processes: as asked, or for "auto" none beside a CPU (they would take its cores) and up to 4 else.

    A worker only copies patches out of the page cache, so few are enough.
    """
    if asked != "auto":
        return int(asked)
    return 0 if device.kind == "cpu" else max(0, min(4, device.cores - 1))


def _deal(dataset: Dataset, data: Mapping[str, Any]) -> Roles:
    split = data["split"]
    roles = assign_roles(
        dataset.cases,
        folds=split["folds"],
        fold=split["fold"],
        tuning=split["tuning"],
        seed=split["seed"],
        file=split["file"],
        held_out=split.get("held_out", 0),
    )
    most = data.get("max_cases")
    return roles if most is None else replace(roles, train=roles.train[:most])


def _check(opened: Opened, data: Mapping[str, Any]) -> list[Finding]:
    """Findings on the seen cases, remembered by content; of the others only what their names tell."""
    seen = opened.seen

    def look() -> list[dict[str, str]]:
        found: list[Finding] = []
        labels: Labels | None = None
        if opened.dataset.declared_labels is not None:
            try:
                labels = infer_labels(opened.dataset, (), kind=data["labels"], ignore=data["ignore_label"])
            except DataError as error:
                found.append(Finding.of(error))
        found += check_cases(
            seen,
            labels,
            dataset=opened.dataset,
            kind=data["labels"],
            ignore=data["ignore_label"],
            workers=preparation_workers(seen),
        )
        return [finding.to_json() for finding in found]

    parts = {"cases": _contents(opened), "dataset": _declared(opened.dataset), **_label_keys(data)}
    records = opened.store.remember("findings", parts, look) if parts["cases"] else look()
    unlabelled = [
        Finding("error", case.case_id, str(case.images[0]), "the image has no label", mend="add it, or take it out")
        for case in (*opened.cases("test"), *opened.cases("held_out"))
        if case.label is None
    ]
    return [Finding(**record) for record in records] + unlabelled


def _labels(opened: Opened, data: Mapping[str, Any]) -> Labels:
    def infer() -> dict[str, Any]:
        labels = infer_labels(opened.dataset, opened.seen, kind=data["labels"], ignore=data["ignore_label"])
        return asdict(labels)

    parts = {"cases": _contents(opened), "dataset": _declared(opened.dataset), **_label_keys(data)}
    record = opened.store.remember("labels", parts, infer)
    return Labels(tuple(record["names"]), tuple(record["ids"]), record["kind"], record["ignore_id"])


def _contents(opened: Opened) -> list[Any]:
    """Names and contents of the seen cases; empty where a file is missing, which the check will tell."""
    try:
        return [
            [case.case_id, case.group, *(f"{path} {opened.store.file_hash(path)}" for path in _files(case))]
            for case in opened.seen
        ]
    except DataError:
        return []


def _files(case: Case) -> tuple[Path, ...]:
    return case.images if case.label is None else (*case.images, case.label)


def _declared(dataset: Dataset) -> str:
    facts = [
        dataset.root,
        dataset.channels,
        dataset.declared_labels,
        dataset.orphans,
        dataset.ignored,
        dataset.annotated,
    ]
    return json.dumps([str(fact) for fact in facts])


def _label_keys(data: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": data["labels"], "ignore": data["ignore_label"]}


def _channel_names(cases: tuple[Case, ...], facts: list[CaseFacts]) -> tuple[str, ...]:
    """Names for channels that nobody named: a picture's colours, else numbers."""
    counts = {fact.num_channels for fact in facts}
    if len(counts) > 1:
        odd = next(case for case, fact in zip(cases, facts, strict=True) if fact.num_channels != facts[0].num_channels)
        raise DataError(
            "the images have different numbers of channels",
            where=f"case {odd.case_id}, {odd.images[0]}",
            why=f"found {', '.join(str(count) for count in sorted(counts))}",
            mend="save all images in one form, grey or colour",
        )
    number = counts.pop()
    if number == 3 and facts[0].unit == "pixel":
        return COLOURS
    return ("grey",) if number == 1 else tuple(f"channel_{k}" for k in range(number))

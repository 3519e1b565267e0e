"""Roles: who trains, who selects, who tests; disjoint by group (person)."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, TypeAlias

from segkit.data.groups import MAX_TABLE_BYTES
from segkit.data.names import shown_id, twice
from segkit.errors import DataError, UsageError
from segkit.ops.keyed_random import generator
from segkit.runs.untrusted import read_regular
from segkit.types import Case

Role = Literal["train", "tuning", "test", "held_out"]
Share: TypeAlias = float | int | Literal["equal"]
OF_A_FOLD: tuple[Role, ...] = ("train", "tuning", "test")
"""Roles that change from fold to fold: over all folds everybody with one of them trains some model."""
ROLES: tuple[Role, ...] = (*OF_A_FOLD, "held_out")

_STREAM = 3
_FEW_GROUPS = 16
_MIN_TUNING = 4


@dataclass(frozen=True)
class Roles:
    """The case ids of each role, and the contents of the cases that were seen.

    Args:
        train: Cases that change the weights.
        tuning: Cases that choose the checkpoint.
        test: Cases that nothing but `evaluate` opens.
        content_hashes: Case id to sha256 of its image files, for train and tuning; filled after `prepare`.
        label_hashes: The same of its label file.
        held_out: Cases of people with no part in any fold: test cases of all folds' models together.
        annotated: Case id to the names of the classes annotated there, for those of train and tuning that lack some;
            filled after `prepare`. None: not written down, by an earlier version.
    """

    train: tuple[str, ...]
    tuning: tuple[str, ...]
    test: tuple[str, ...]
    content_hashes: Mapping[str, str] = field(default_factory=dict)
    label_hashes: Mapping[str, str] = field(default_factory=dict)
    held_out: tuple[str, ...] = ()
    annotated: Mapping[str, tuple[str, ...]] | None = None

    def __post_init__(self) -> None:
        pairs = combinations(map(self.of, ROLES), 2)
        twice = sorted({case_id for one, other in pairs for case_id in set(one) & set(other)})
        if twice:
            raise DataError(
                "a case has two roles",
                where=f"case {twice[0]}",
                why=f"{len(twice)} cases do",
                mend="name each case in one of train, tuning, test and held_out",
            )

    def of(self, subset: Role) -> tuple[str, ...]:
        """The case ids of one role."""
        ids: tuple[str, ...] = getattr(self, subset)
        return ids

    def role(self, case_id: str) -> Role | None:
        """The role of a case id, or None."""
        return next((role for role in ROLES if case_id in self.of(role)), None)

    def name_of_content(self, content_hash: str) -> str | None:
        """The case id under which an image of this content was seen, whatever it is now; None for unseen content."""
        return next((case_id for case_id, seen in self.content_hashes.items() if seen == content_hash), None)

    def role_of_content(self, content_hash: str) -> Role | None:
        """The role that an image of this content had, whatever its name is now; None for unseen content."""
        name = self.name_of_content(content_hash)
        return None if name is None else self.role(name)

    def with_hashes(self, hashes: Mapping[str, str], labels: Mapping[str, str] | None = None) -> "Roles":
        """The same roles, with the content hashes of training and tuning cases, of images and of labels."""
        seen = (*self.train, *self.tuning)
        of_images, of_labels = ({i: known[i] for i in seen if i in known} for known in (hashes, labels or {}))
        return replace(self, content_hashes=of_images, label_hashes=of_labels)

    def to_json(self) -> dict[str, Any]:
        """A JSON-clean dictionary, as split.json stores it."""
        hashes = {"content_hashes": dict(self.content_hashes), "label_hashes": dict(self.label_hashes)}
        annotated = None if self.annotated is None else {case: list(names) for case, names in self.annotated.items()}
        return {role: list(self.of(role)) for role in ROLES} | hashes | {"annotated": annotated}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Roles":
        """The inverse of `to_json`."""
        annotated = stored.get("annotated")
        return cls(
            train=tuple(stored["train"]),
            tuning=tuple(stored["tuning"]),
            test=tuple(stored["test"]),
            content_hashes=dict(stored.get("content_hashes", {})),
            label_hashes=dict(stored.get("label_hashes", {})),
            held_out=tuple(stored.get("held_out", ())),
            annotated=None if annotated is None else {case: tuple(names) for case, names in annotated.items()},
        )


def assign_roles(
    cases: Sequence[Case],
    *,
    folds: int = 5,
    fold: int = 0,
    tuning: Share = 0.15,
    seed: int = 12345,
    file: str | Path | None = None,
    held_out: float | int = 0,
) -> Roles:
    """Deal the groups to held out, test, tuning and train.

    The sorted groups are shuffled with the seed. The first of them are held out: they are the same for every fold and
    every share of tuning, and a larger number holds out the same people and more. The rest is cut into k = min(folds,
    groups left) parts whose sizes differ by at most one; part `fold` is the test part, so that over all folds every
    group that is left is tested once. Tuning takes the next groups in the shuffled order.

    Args:
        cases: All cases; one role a group, whatever its number of cases.
        folds: Parts.
        fold: Which part is the test part, 0 <= fold < k.
        tuning: Share of the groups that are neither tested nor held out, at least 4 of them; 1 where fewer than 16 are
            left. "equal": as many as test. 0: none, nothing is selected.
        seed: Key of the shuffle.
        file: Take the roles from a file instead: JSON {"train": [...], "tuning": [...], "test": [...], "held_out":
            [...]}, of which only train must be there, CSV with the columns case,role, or nnU-Net's splits_final.json,
            whose `val` of this fold is the test part.
        held_out: Share of all groups, at least one of them, or from 1 on their number.

    Raises:
        DataError: Fewer than three groups; a file whose roles share a group or name unknown cases.
        UsageError: A fold that is not there; a share outside [0, 1); fewer than three groups that are not held out, or
            people to hold out beside a file.
    """
    if file is not None and held_out:
        raise UsageError(
            "a file of roles says itself who is held out",
            where=f"data.split.held_out={held_out}",
            why=f"data.split.file={file} is given too",
            mend="data.split.held_out=0, and name the cases in the file as held_out",
        )
    if file is not None:
        roles = _from_file(cases, Path(file).expanduser(), fold=fold, tuning=tuning, seed=seed)
        assert_disjoint(roles, cases)
        return roles
    people = _shuffled({case.group for case in cases}, seed)
    if len(people) < 3:
        raise DataError(
            "too few people to train, select and test on",
            why=f"{len(cases)} cases of {len(people)} people (groups); it takes three",
            mend="add cases; or name every role yourself: data.split.file=split.json",
        )
    apart = _held_out_count(held_out, people=len(people))
    held, order = people[:apart], people[apart:]
    k = min(folds, len(order))
    if folds < 2 or not 0 <= fold < k:
        raise UsageError(
            "there is no such fold",
            where="data.split.fold",
            why=f"fold {fold} of min({folds} folds, {len(order)} people) = {k}",
            mend=f"data.split.fold=0 ... {k - 1}",
        )
    bounds = [round(len(order) * part / k) for part in range(k + 1)]
    test = order[bounds[fold] : bounds[fold + 1]]
    rest = order[bounds[fold + 1] :] + order[: bounds[fold]]
    chosen = rest[: _tuning_count(tuning, left=len(rest), test=len(test))]
    roles = _of_groups(cases, tuning=chosen, test=test, held_out=held)
    assert_disjoint(roles, cases)
    return roles


def assert_disjoint(roles: Roles, cases: Sequence[Case]) -> None:
    """Refuse roles that share a group.

    Raises:
        DataError: Naming a group and two of its cases.
    """
    group = {case.case_id: case.group for case in cases}
    owner: dict[str, tuple[Role, str]] = {}
    for role in ROLES:
        for case_id in roles.of(role):
            if case_id not in group:
                continue
            other, first = owner.setdefault(group[case_id], (role, case_id))
            if other != role:
                raise DataError(
                    "one person is in two roles",
                    where=f"group {group[case_id]}",
                    why=f"case {first} is in {other}, case {case_id} in {role}",
                    mend="put every case of a person into one role",
                )


def _shuffled(groups: set[str], seed: int) -> list[str]:
    ordered = sorted(groups)
    return [ordered[k] for k in generator(seed, 0, _STREAM).permutation(len(ordered))]


def _held_out_count(held_out: float | int, *, people: int) -> int:
    """How many of all groups get no part in any fold; at least three are left to deal."""
    if held_out < 0 or (held_out > 1 and held_out != int(held_out)):
        why = f"got {held_out}"
        raise UsageError("a share lies in [0, 1), a number is whole", where="data.split.held_out", why=why)
    count = max(1, round(held_out * people)) if 0 < held_out < 1 else int(held_out)
    if people - count < 3:
        raise UsageError(
            "too few people are left to train, select and test on",
            where=f"data.split.held_out={held_out}",
            why=f"{count} of {people} people (groups) are held out; it takes three others",
            mend=f"data.split.held_out={people - 3} at most",
        )
    return count


def _tuning_count(tuning: Share, *, left: int, test: int) -> int:
    """How many of the groups outside test select checkpoints; at least one is left to train on."""
    if tuning == "equal":
        return min(test, left - 1)
    if not 0 <= tuning < 1:
        raise UsageError("a share lies in [0, 1)", where="data.split.tuning", why=f"got {tuning}")
    if tuning == 0:
        return 0
    wanted = 1 if left < _FEW_GROUPS else max(_MIN_TUNING, round(tuning * left))
    return min(wanted, left - 1)


def _of_groups(cases: Sequence[Case], *, tuning: Sequence[str], test: Sequence[str], held_out: Sequence[str]) -> Roles:
    dealt: dict[str, Role] = {
        **dict.fromkeys(tuning, "tuning"),
        **dict.fromkeys(test, "test"),
        **dict.fromkeys(held_out, "held_out"),
    }
    ids: dict[Role, list[str]] = {role: [] for role in ROLES}
    for case in sorted(cases, key=lambda case: case.case_id):
        ids[dealt.get(case.group, "train")].append(case.case_id)
    return Roles(tuple(ids["train"]), tuple(ids["tuning"]), tuple(ids["test"]), held_out=tuple(ids["held_out"]))


def _from_file(cases: Sequence[Case], path: Path, *, fold: int, tuning: Share, seed: int) -> Roles:
    where = f"data.split.file={path}"
    try:
        text = read_regular(path, limit=MAX_TABLE_BYTES).decode("utf-8-sig")
        stored: Any = _rows(text) if path.suffix.lower() == ".csv" else json.loads(text)
        if isinstance(stored, list):
            roles = _from_nnunet(cases, stored[fold], tuning=tuning, seed=seed)
        else:
            roles = Roles(
                tuple(stored["train"]),
                tuple(stored.get("tuning", ())),
                tuple(stored.get("test", ())),
                dict(stored.get("content_hashes", {})),
                held_out=tuple(stored.get("held_out", ())),
            )
    except FileNotFoundError as error:
        raise UsageError("the file of roles is not there", where=where, why=str(error)) from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        raise DataError(
            "the file of roles cannot be understood",
            where=where,
            why=f"{type(error).__name__}: {error}",
            mend='write {"train": [...], "tuning": [...], "test": [...]} with case ids',
        ) from error
    _require_names(roles, where=where)
    known = {case.case_id for case in cases}
    unknown = [case_id for role in ROLES for case_id in roles.of(role) if case_id not in known]
    if unknown or not roles.train:
        raise DataError(
            "the file of roles names cases that are not there"
            if unknown
            else "the file of roles leaves nobody to train on",
            where=where,
            why=f"{len(unknown)} of them, such as {', '.join(map(shown_id, unknown[:3]))}"
            if unknown
            else "train is empty",
            mend="use the case ids that `check` prints",
        )
    return roles


def _require_names(roles: Roles, *, where: str) -> None:
    """Each role a list of names, none of them twice: a case that is there twice would count twice."""
    names = [name for role in ROLES for name in roles.of(role)]
    odd = [name for name in names if not isinstance(name, str)]
    if odd or (again := twice(names)):
        raise DataError(
            "the file of roles cannot be understood" if odd else "the file of roles names a case twice",
            where=where,
            why=f"{str(odd[0])[:80]!r} is no case id" if odd else f"case {', '.join(map(shown_id, again[:3]))}",
            mend='write {"train": [...], "tuning": [...], "test": [...]} with case ids, each once',
        )


def _rows(text: str) -> dict[str, list[str]]:
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    found: dict[str, list[str]] = {role: [] for role in ROLES}
    for row in rows:
        found[row["role"].strip()].append(row["case"].strip())
    return found


def _from_nnunet(cases: Sequence[Case], entry: Mapping[str, Sequence[str]], *, tuning: Share, seed: int) -> Roles:
    """nnU-Net's `val` becomes the test part, since it must not select; tuning is dealt from its `train`."""
    group = {case.case_id: case.group for case in cases}
    test = tuple(entry["val"])
    order = _shuffled({group.get(case_id, case_id) for case_id in entry["train"]}, seed)
    tested = len({group.get(case_id, case_id) for case_id in test})
    chosen = set(order[: _tuning_count(tuning, left=len(order), test=tested)])
    return Roles(
        train=tuple(case_id for case_id in entry["train"] if group.get(case_id, case_id) not in chosen),
        tuning=tuple(case_id for case_id in entry["train"] if group.get(case_id, case_id) in chosen),
        test=test,
    )

"""Which cases a model has seen: by the content of their images, whatever their names are now."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from segkit.data.splits import Role, Roles
from segkit.errors import DataError, UsageError

Subset = Literal["train", "tuning", "test", "held_out", "all"]
SEEN = "SEEN CASES"
OPTIMISTIC = "selection score (optimistic)"
HELD_OUT = "held out"
_NAMED = 3


class Model(NamedTuple):
    """A run, alone or a member of an ensemble: its name, and who was in which role there.

    Args:
        name: Of the run.
        roles: Of its cases.
        ancestors: The runs whose weights it began with; what they have seen, it has seen.
    """

    name: str
    roles: Roles
    ancestors: tuple["Model", ...] = ()


class Sighting(NamedTuple):
    """A model has seen a case.

    Args:
        model: Name of its run.
        case_id: Case that is to be scored.
        role: What the model used it for.
        known_as: Name of the case there.
    """

    model: str
    case_id: str
    role: Role
    known_as: str

    def __str__(self) -> str:
        """`anna (train of fold-2)`; where it has another name there, that too."""
        other = "" if self.known_as == self.case_id else f", as {self.known_as}"
        return f"{self.case_id} ({self.role} of {self.model}{other})"


def seen_by(models: Sequence[Model], hashes: Mapping[str, str]) -> tuple[Sighting, ...]:
    """The cases that a model was trained or selected on, model by model.

    Args:
        models: One, or the members of an ensemble.
        hashes: Content hash of the images of each case that is to be scored. A case of training or tuning whose content
            was not stored counts by its name.
    """
    found = []
    for model in (each for one in models for each in (one, *one.ancestors)):
        roles = model.roles
        for case_id, content in hashes.items():
            known_as = roles.name_of_content(content)
            if known_as is None and case_id not in roles.content_hashes:
                known_as = case_id
            role = None if known_as is None else roles.role(known_as)
            if known_as is not None and role in ("train", "tuning"):
                found.append(Sighting(model.name, case_id, role, known_as))
    return tuple(found)


def label_of(subset: Subset, seen: Sequence[Sighting], *, allow_seen: bool) -> str:
    """What the result must call itself; refuses what may not be scored.

    Scoring the tuning cases on purpose is allowed: it repeats what selection saw, and says so.

    Args:
        subset: What was asked for.
        seen: Cases among it that a model has seen.
        allow_seen: Whether the user wants seen cases scored all the same.

    Raises:
        UsageError: Training cases were asked for.
        DataError: Cases under test are, by content, training or tuning cases of a model.
    """
    against = [one for one in seen if one.role == "train"] if subset == "tuning" else list(seen)
    if subset == "tuning" and not against:
        return OPTIMISTIC
    if not seen:
        return {"test": "test", "held_out": HELD_OUT}.get(subset, "unseen cases")
    if allow_seen:
        return SEEN
    first = against[0]
    where = f"subset={subset}, model {first.model}, case {first.case_id}"
    count = len({one.case_id for one in against})
    why = f"{count} case{'' if count == 1 else 's'}, such as {', '.join(map(str, against[:_NAMED]))}"
    mark = "allow_seen=true, which marks every output SEEN CASES"
    if subset in ("train", "all"):
        what = "a model has seen these cases; their score says nothing of new ones"
        raise UsageError(what, where=where, why=why, mend=f"subset=test or held_out; or {mark}")
    what = f"{subset} cases are cases that a model was trained or selected on"
    others = "subset=held_out; or " if subset == "test" else ""
    mend = f"{others}each run by itself (folds: run=<their folder>); copies taken out of the data set; or {mark}"
    raise DataError(what, where=where, why=why, mend=mend)

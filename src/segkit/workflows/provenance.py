"""Which cases a run has seen: by the content of their images, whatever their names are now."""

from collections.abc import Mapping
from typing import Literal

from segkit.data.splits import Role, Roles
from segkit.errors import DataError, UsageError

Subset = Literal["train", "tuning", "test", "all"]
SEEN = "SEEN CASES"
OPTIMISTIC = "selection score (optimistic)"


def seen_cases(hashes: Mapping[str, str], roles: Roles) -> dict[str, Role]:
    """The cases that the run was trained or selected on, with their role.

    Args:
        hashes: Content hash of the images of each case that is to be scored.
        roles: Of the run. A case of training or tuning whose content was not stored counts by its name.
    """
    found: dict[str, Role] = {}
    for case_id, content in hashes.items():
        role = roles.role_of_content(content)
        if role is None and case_id not in roles.content_hashes:
            role = roles.role(case_id)
        if role in ("train", "tuning"):
            found[case_id] = role
    return found


def label_of(subset: Subset, seen: Mapping[str, Role], *, allow_seen: bool) -> str:
    """What the result must call itself; refuses what may not be scored.

    Scoring the tuning cases on purpose is allowed: it repeats what selection saw, and says so.

    Args:
        subset: What was asked for.
        seen: Cases among it that the run has seen.
        allow_seen: Whether the user wants seen cases scored all the same.

    Raises:
        UsageError: Training cases were asked for.
        DataError: Cases under test have the content of training or tuning cases.
    """
    trained = sorted(case_id for case_id, role in seen.items() if role == "train")
    if subset == "tuning" and not trained:
        return OPTIMISTIC
    if not seen:
        return "test" if subset == "test" else "unseen cases"
    if allow_seen:
        return SEEN
    names = sorted(seen) if subset != "tuning" else trained
    why = f"{len(names)} cases, such as " + ", ".join(f"{case_id} ({seen[case_id]})" for case_id in names[:3])
    mend = "subset=test; or allow_seen=true, which marks every output SEEN CASES"
    if subset in ("train", "all"):
        what = "the run has seen these cases; their score says nothing of new ones"
        raise UsageError(what, where=f"subset={subset}", why=why, mend=mend)
    what = f"{subset} cases have the content of cases the run was trained or selected on"
    raise DataError(what, where=f"subset={subset}", why=why, mend=mend)

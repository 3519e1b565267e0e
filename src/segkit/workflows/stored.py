"""What a run folder says, understood or refused by name: its configuration, plan, roles and settings are data."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from segkit.data.splits import Roles
from segkit.errors import StorageError
from segkit.evaluation import EvaluationSettings
from segkit.planning.plan import Plan
from segkit.planning.plausible import implausible
from segkit.runs.directory import RunDirectory
from segkit.runs.files import read_json
from segkit.runs.untrusted import is_regular
from segkit.workflows.provenance import Model

Read = TypeVar("Read")
_STUMBLES = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
_TEXT = {"data": ("root", "layout", "groups"), "paths": ("cache",)}


def stored_plan(directory: RunDirectory) -> Plan:
    """The plan that a run was begun with.

    Raises:
        StorageError: plan.json is missing or damaged, or says what no plan can.
    """
    plan = understood(directory.plan, lambda: Plan.from_json(stored(directory.plan)))
    if fault := understood(directory.plan, lambda: implausible(plan)):
        raise _not_ours(directory.plan, fault)
    return plan


def stored_roles(directory: RunDirectory) -> Roles:
    """Roles of the cases, with the contents of those that were seen.

    Raises:
        StorageError: split.json is missing or damaged.
    """
    return understood(directory.split, lambda: Roles.from_json(stored(directory.split)))


def stored_ancestors(directory: RunDirectory) -> tuple[Model, ...]:
    """The runs whose weights the run began with, and what they had begun with; none where it began as it was drawn.

    Raises:
        StorageError: ancestors.json is damaged.
    """
    if not directory.ancestors.is_file():
        return ()

    def read() -> tuple[Model, ...]:
        records = stored(directory.ancestors)["runs"]
        return tuple(Model(str(each["name"]), Roles.from_json(each["roles"])) for each in records)

    return understood(directory.ancestors, read)


def stored_settings(directory: RunDirectory, config: Mapping[str, Any]) -> EvaluationSettings:
    """How the run's whole images become numbers.

    Raises:
        StorageError: The configuration lacks them.
        UsageError: It names a score that there is not.
    """
    return understood(directory.config, lambda: EvaluationSettings.from_config(config))


def stored_config(directory: RunDirectory) -> dict[str, Any]:
    """The configuration that the run was trained with, as far as a verb on its folder reads it.

    Raises:
        UsageError: There is none, or it cannot be read.
        StorageError: A section of it is none.
    """
    config = directory.load_config()
    for section in ("network", "trainer", "score", "validation", *_TEXT):
        if not isinstance(config.get(section), dict):
            raise _not_ours(directory.config, f"{section} is {str(config.get(section))[:80]!r}, no section")
    for section, keys in _TEXT.items():
        for key in keys:
            if not isinstance(value := config[section].get(key), str | None):
                raise _not_ours(directory.config, f"{section}.{key} is {str(value)[:80]!r}, no text")
    return config


def stored(path: Path) -> dict[str, Any]:
    """A JSON file of the run.

    Raises:
        StorageError: It is missing or damaged.
    """
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        mend = "the run is not whole: was it stopped before its first epoch?"
        raise StorageError("a file of the run cannot be read", where=str(path), why=str(error), mend=mend) from error


def understood(path: Path, read: Callable[[], Read]) -> Read:
    """What `read` returns; what it stumbles over is a fault of the file.

    Raises:
        StorageError: Naming the file and the fault.
    """
    try:
        return read()
    except _STUMBLES as error:
        raise _not_ours(path, f"{type(error).__name__}: {str(error)[:300]}") from error


def require_own_files(directory: RunDirectory) -> None:
    """Refuse links and special files where a training writes in place: it would write, or wait, somewhere else.

    Raises:
        StorageError: Naming the file.
    """
    for path in (directory.lock_file, directory.log, directory.metrics, directory.timings):
        if path.is_symlink() or (path.exists() and not is_regular(path)):
            raise StorageError(
                "a link or a special file stands where the run would write",
                where=str(path),
                why=f"it leads to {path.readlink()}" if path.is_symlink() else "it is no regular file",
                mend="remove it; a run folder's own files are plain files",
            )


def _not_ours(path: Path, why: str) -> StorageError:
    mend = "put the file back as segkit wrote it, from a backup"
    return StorageError("a file of the run cannot be understood", where=str(path), why=why, mend=mend)

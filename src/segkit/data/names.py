"""Names of cases: they become names of files, so what no file may be called is refused before one is written."""

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from segkit.errors import DataError
from segkit.types import Case

MAX_BYTES = 200
"""A file system's 255, less the ending and what is put round the name while the file is written."""
_NAMED = 5


def require_usable_ids(cases: Sequence[Case]) -> None:
    """Refuse case ids that cannot be the name of a file, or that would lead out of its folder.

    Raises:
        DataError: Naming them.
    """
    wrong = [(case.case_id, why) for case in cases if (why := fault_of(case.case_id))]
    if wrong:
        shown = "; ".join(f"{shown_id(case_id)}: {why}" for case_id, why in wrong[:_NAMED])
        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise DataError(
            "a case id cannot be the name of a file",
            where=f"case {shown_id(wrong[0][0])}",
            why=shown + more,
            mend="rename the case; letters, digits, '.', '-' and '_' serve everywhere",
        )


def fault_of(case_id: str) -> str:
    """Why `case_id` cannot be the name of a file; "" where it can."""
    if not case_id.strip() or case_id in (".", ".."):
        return "it is empty" if not case_id.strip() else "it names a folder"
    if "/" in case_id or "\\" in case_id:
        return "it holds a path separator"
    if not all(character.isprintable() for character in case_id):
        return "it holds a control character, or bytes that are no UTF-8"
    if len(case_id.encode()) > MAX_BYTES:
        return f"it has {len(case_id.encode())} bytes, more than {MAX_BYTES}"
    return ""


def shown_id(case_id: str) -> str:
    """A name as it may be printed: no control characters, and not without end."""
    text = case_id if all(c.isprintable() for c in case_id) else ascii(case_id)
    return text if len(text) <= 80 else f"{text[:80]}..."


def outside(path: str) -> bool:
    """Whether a path that a table gives, relative to its data set, leads out of it."""
    pure = PurePosixPath(path)
    return pure.is_absolute() or ".." in pure.parts or "\\" in path or "\0" in path


def twice(names: Iterable[str]) -> list[str]:
    """The names that occur more than once, sorted."""
    seen: set[str] = set()
    return sorted({name for name in names if name in seen or seen.add(name)})  # type: ignore[func-returns-value]

"""The table of a transfer as text: the whole of it for a file, and in short for a screen."""

from collections.abc import Sequence

from segkit.weights.source import Source
from segkit.weights.transfer import Fate, Row, Transfer

_FATES: tuple[Fate, ...] = ("loaded", "adapted", "initial", "unused")
_ODD = 4
"""Lines of the short form for what was not taken as it was."""


def summary(found: Transfer, source: Source) -> str:
    """One line: counts by fate, and where the weights come from."""
    counts = ", ".join(f"{found.count(fate)} {fate}" for fate in _FATES if found.count(fate))
    return f"{counts} tensors of {source.told}"


def notes(found: Transfer, source: Source) -> list[str]:
    """What was adapted, and what begins as it was drawn: one line for each reason, the most frequent first."""
    reasons: dict[tuple[Fate, str], list[str]] = {}
    for row in found.rows:
        if row.fate in ("adapted", "initial"):
            reasons.setdefault((row.fate, row.told), []).append(row.name)
    ordered = sorted(reasons.items(), key=lambda item: (_FATES.index(item[0][0]), -len(item[1])))
    lines = [f"{fate}: {_names(names)}: {told}" for (fate, told), names in ordered]
    if len(lines) > _ODD:
        lines = [*lines[: _ODD - 1], f"and {len(lines) - _ODD + 1} more reasons in weights.txt"]
    if any(row.fate == "initial" and row.told != "not in the file" for row in found.rows) and source.overrides:
        lines.append(f"the file's own network is built by {' '.join(source.overrides)}")
    return lines


def table(found: Transfer, source: Source, *, path: str, sha256: str) -> str:
    """Every tensor with its fate, and where the file was."""
    width = max(len(row.name) for row in found.rows)
    head = [f"weights  {path}", f"sha256   {sha256 or 'a folder'}", f"         {summary(found, source)}", ""]
    return "\n".join([*head, *(_line(row, width) for row in found.rows), ""])


def _line(row: Row, width: int) -> str:
    return f"{row.fate:<8} {row.name:<{width}}  {row.told}".rstrip()


def _names(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"

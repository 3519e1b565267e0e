"""A fault, oddity or remark on a data set, and what to do with many of them."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from segkit.errors import DataError

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Args:
        level: "error" where training cannot or must not go on, "warning" where the result may be wrong, "note" what
            is good to know.
        case: Case id, or "" where it concerns the whole data set.
        file: Path, or "".
        what: The fault in one sentence.
        why: The cause, with the values that were found.
        mend: The line that puts it right.
    """

    level: Level
    case: str
    file: str
    what: str
    why: str = ""
    mend: str = ""

    @classmethod
    def of(cls, error: DataError, *, case: str = "", file: str = "") -> "Finding":
        """An error that a reader raised, as a finding."""
        return cls("error", case, file or ("" if case else error.where), error.what, error.why, error.mend)

    def to_json(self) -> dict[str, str]:
        """A JSON-clean dictionary."""
        return asdict(self)

    def __str__(self) -> str:
        where = ", ".join(part for part in (self.case and f"case {self.case}", self.file) if part)
        lines = [f"{self.level}: {self.what}"]
        lines += [f"  {n}: {text}" for n, text in (("where", where), ("why", self.why), ("mend", self.mend)) if text]
        return "\n".join(lines)


def raise_if_errors(findings: Sequence[Finding]) -> None:
    """Stop on the errors among the findings, all of them in one message.

    Raises:
        DataError: The one error with its own parts; or several, each on its lines.
    """
    errors = [finding for finding in findings if finding.level == "error"]
    if not errors:
        return
    first = errors[0]
    where = ", ".join(part for part in (first.case and f"case {first.case}", first.file) if part)
    if len(errors) == 1:
        raise DataError(first.what, where=where, why=first.why, mend=first.mend)
    raise DataError(f"the data has {len(errors)} errors\n" + describe(errors))


def describe(findings: Sequence[Finding], *, examples: int = 3) -> str:
    """Findings as text, errors first; of many alike the first few are shown and the others counted.

    Errors must all be mended before training, so the others are named as well.
    """
    shown: Counter[tuple[str, str]] = Counter()
    total = Counter((finding.level, finding.what) for finding in findings)
    cases: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    parts = []
    for finding in sorted(findings, key=lambda finding: LEVELS.index(finding.level)):
        key = (finding.level, finding.what)
        shown[key] += 1
        cases[key].append(finding.case)
        if shown[key] <= examples:
            parts.append(str(finding))
        elif shown[key] == total[key]:
            names = f": {', '.join(cases[key][examples:])}" if finding.level == "error" and all(cases[key]) else ""
            parts.append(f"{finding.level}: {finding.what}: {total[key] - examples} more cases{names}")
    return "\n".join(parts)


def counts(findings: Sequence[Finding]) -> str:
    """`2 errors, 1 warning, 0 notes`."""
    number = Counter(finding.level for finding in findings)
    return ", ".join(f"{number[level]} {level}{'' if number[level] == 1 else 's'}" for level in LEVELS)

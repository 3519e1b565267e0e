"""The comment behind a key in a YAML file, read as its type, its unit and its meaning.

    key: value  # TYPE[, unit]. Meaning.

    TYPE      alternative {" or " alternative}
    alternative  ["list of " ...] atom
    atom      bool | str | path | dict | null | one of a|b|c | (int | float) [bound]
    bound     (>= | > | <= | <) number | in [low, high] with round brackets where an end is left out

This is the only statement of a key's type: the help shows it, and overrides are checked by it.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["bool", "str", "path", "dict", "null", "choice", "int", "float"]

_NUMBER = r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
_WORD = r"[\w+-]+(?:\.[\w+-]+)*"
_BOUND = rf"(?: (?:>=|<=|>|<) {_NUMBER}| in [\[(]{_NUMBER}, {_NUMBER}[\])])"
_ATOM = rf"(?:list of )*(?:bool|str|path|dict|null|one of {_WORD}(?:\|{_WORD})*|(?:int|float){_BOUND}?)"
_COMMENT = re.compile(rf"(?P<type>{_ATOM}(?: or {_ATOM})*)(?:, (?P<unit>[^.]+))?\.(?: (?P<meaning>.+))?")
_ONE_SIDED = re.compile(rf"(?P<kind>int|float) (?P<sign>>=|<=|>|<) (?P<limit>{_NUMBER})")
_TWO_SIDED = re.compile(
    rf"(?P<kind>int|float) in (?P<open>[\[(])(?P<low>{_NUMBER}), (?P<high>{_NUMBER})(?P<close>[\])])"
)


@dataclass(frozen=True)
class Interval:
    """Numbers between two ends, either of which may be left out."""

    low: float = -math.inf
    high: float = math.inf
    includes_low: bool = True
    includes_high: bool = True

    def __contains__(self, value: float | int) -> bool:
        """Whether the number lies inside."""
        above = value >= self.low if self.includes_low else value > self.low
        below = value <= self.high if self.includes_high else value < self.high
        return above and below


@dataclass(frozen=True)
class Alternative:
    """One of the forms that a value may take.

    Args:
        kind: What the innermost item is.
        depth: How many lists lie round it.
        interval: Where a number must lie.
        choices: What a choice is made from.
    """

    kind: Kind
    depth: int = 0
    interval: Interval = Interval()
    choices: tuple[str, ...] = ()

    def accepts(self, value: object) -> bool:
        """Whether the value has this form."""
        return self._accepts(value, self.depth)

    def normalised(self, value: object) -> object:
        """The same value in one form: a whole number where a float is meant is a float, `~` is the home folder."""
        if isinstance(value, list):
            return [self.normalised(item) for item in value]
        if self.kind == "float" and isinstance(value, int):
            return float(value)
        if self.kind == "path" and isinstance(value, str) and value.startswith("~"):
            return str(Path(value).expanduser())
        return value

    def _accepts(self, value: object, depth: int) -> bool:
        if depth > 0:
            return isinstance(value, list) and all(self._accepts(item, depth - 1) for item in value)
        match self.kind:
            case "null":
                return value is None
            case "bool":
                return isinstance(value, bool)
            case "dict":
                return isinstance(value, dict)
            case "str" | "path":
                return isinstance(value, str)
            case "choice":
                return isinstance(value, str) and value in self.choices
            case "int":
                return isinstance(value, int) and not isinstance(value, bool) and value in self.interval
            case "float":
                if not isinstance(value, int | float) or isinstance(value, bool):
                    return False
                return math.isfinite(value) and value in self.interval


@dataclass(frozen=True)
class ValueType:
    """The type of a key's value: any of its alternatives, and the words it was written in."""

    text: str
    alternatives: tuple[Alternative, ...]

    def accepts(self, value: object) -> bool:
        """Whether the value is of this type."""
        return any(alternative.accepts(value) for alternative in self.alternatives)

    def normalised(self, value: object) -> object:
        """The same value in the form of the first alternative that accepts it."""
        fitting = next((alternative for alternative in self.alternatives if alternative.accepts(value)), None)
        return value if fitting is None else fitting.normalised(value)

    def has(self, *kinds: Kind) -> bool:
        """Whether a plain value of one of these kinds is of this type."""
        return any(alternative.kind in kinds and alternative.depth == 0 for alternative in self.alternatives)

    @property
    def choices(self) -> tuple[str, ...]:
        """All words that may be chosen."""
        return tuple(word for alternative in self.alternatives for word in alternative.choices)


@dataclass(frozen=True)
class Comment:
    """What the comment behind a key says."""

    type: ValueType
    unit: str
    meaning: str


def parse_comment(text: str) -> Comment | None:
    """Read a comment; None where it does not follow the grammar."""
    match = _COMMENT.fullmatch(text.strip())
    if match is None:
        return None
    alternatives = tuple(_alternative(part) for part in match["type"].split(" or "))
    return Comment(ValueType(match["type"], alternatives), match["unit"] or "", match["meaning"] or "")


def _alternative(text: str) -> Alternative:
    depth = text.count("list of ")
    atom = text.replace("list of ", "")
    if atom.startswith("one of "):
        return Alternative("choice", depth, choices=tuple(atom.removeprefix("one of ").split("|")))
    if match := _ONE_SIDED.fullmatch(atom):
        return Alternative(_number(match["kind"]), depth, _half_line(match["sign"], float(match["limit"])))
    if match := _TWO_SIDED.fullmatch(atom):
        ends = Interval(float(match["low"]), float(match["high"]), match["open"] == "[", match["close"] == "]")
        return Alternative(_number(match["kind"]), depth, ends)
    kinds: dict[str, Kind] = {
        "bool": "bool", "str": "str", "path": "path", "dict": "dict", "null": "null", "int": "int", "float": "float",
    }  # fmt: skip
    return Alternative(kinds[atom], depth)


def _number(kind: str) -> Kind:
    return "int" if kind == "int" else "float"


def _half_line(sign: str, limit: float) -> Interval:
    if sign.startswith(">"):
        return Interval(low=limit, includes_low=sign == ">=")
    return Interval(high=limit, includes_high=sign == "<=")

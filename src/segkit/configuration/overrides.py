"""The words of a command line, read by Hydra's grammar one by one, so that one bad word hides no other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException


@dataclass(frozen=True)
class Override:
    """One `key=value` of the user.

    Args:
        text: As typed.
        prefix: `+`, `++` or `~` where the user typed one.
        key: Dotted key, or name of a group.
        package: What follows an `@` in the key: where a file of the group goes.
        raw: The value as typed; None where there was no `=`.
        values: The value; under a sweep all of them.
        is_sweep: Whether Hydra reads more than one value in it.
        is_malformed: Whether Hydra's grammar refuses it; `values` is empty then.
    """

    text: str
    prefix: str
    key: str
    package: str
    raw: str | None
    values: tuple[Any, ...] = ()
    is_sweep: bool = False
    is_malformed: bool = False

    @property
    def place(self) -> str:
        """What is set: the key, or the group and where its file goes, `loss@loss.terms.main`."""
        return f"{self.key}@{self.package}" if self.package else self.key

    @property
    def is_interpolated(self) -> bool:
        """Whether the value refers to other keys, so that it is known only after composition."""
        return self.raw is not None and "${" in self.raw


def read_overrides(texts: Sequence[str]) -> list[Override]:
    """Read each word by itself; a word that Hydra's grammar refuses is marked, not raised."""
    parser = OverridesParser.create()
    return [_read(text, parser) for text in texts]


def _read(text: str, parser: OverridesParser) -> Override:
    left, equals, raw = text.partition("=")
    bare = left.lstrip("+~")
    prefix = left[: len(left) - len(bare)]
    key, _, package = bare.partition("@")
    plain = Override(text, prefix, key.strip(), package, raw if equals else None)
    if not equals:
        return plain
    try:
        parsed = parser.parse_override(f"{key}={raw}")
        is_sweep = parsed.is_sweep_override()
        values = tuple(parsed.sweep_iterator()) if is_sweep and parsed.is_discrete_sweep() else (parsed.value(),)
    except (HydraException, ValueError):
        return Override(text, prefix, key.strip(), package, raw, is_malformed=True)
    return Override(text, prefix, key.strip(), package, raw, tuple(map(_plain, values)), is_sweep)


def _plain(value: object) -> object:
    """Hydra's own quoted strings as strings, in lists and dicts too."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return value.text if isinstance(value, QuotedString) else value

"""Every override checked against the keys, groups and types of the tree, before anything is built.

One pass names all that is wrong. Nothing is ever added by a `+`: a key that does not exist is a mistake, and
adding it would set a value that nobody reads. Below a key of type dict (`loss.args`) any key may be set.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segkit.configuration.overrides import Override
from segkit.configuration.problems import Problem, nearest_key, nearest_word
from segkit.configuration.tree import Leaf, Tree
from segkit.configuration.value_types import ValueType


@dataclass(frozen=True)
class Setting:
    """An override that passed: this key is set to these values, one unless it is a sweep."""

    key: str
    values: tuple[Any, ...]
    below_open: bool = False


@dataclass(frozen=True)
class Schema:
    """What may be set for one verb with the choices of its user.

    Args:
        verb: Name of the verb.
        tree: All files.
        choices: The choice in each group.
        leaves: Every key of the composed configuration.
    """

    verb: str
    tree: Tree
    choices: Mapping[str, str | None]
    leaves: Mapping[str, Leaf]

    def is_open(self, key: str) -> bool:
        """Whether the key lies below one of type dict, so that it may be called anything."""
        return any(leaf.is_open and key.startswith(f"{leaf.key}.") for leaf in self.leaves.values())

    def elsewhere(self, key: str) -> str:
        """Where a key that does not exist here does exist: another choice of its group, or another verb."""
        group = key.partition(".")[0]
        if group in self.choices:
            for choice in self.tree.names(group):
                if key in self.tree.leaves(self.verb, {**self.choices, group: choice}):
                    return f"It is a key of {group}={choice}."
        for verb in self.tree.names():
            if verb != self.verb and key in self.tree.leaves(verb, self.tree.choices(verb, {})):
                return f"It is a key of segkit.{verb}."
        return ""


def check_form(overrides: Sequence[Override]) -> tuple[list[Override], list[Problem]]:
    """Sort out what cannot be an override at all: no `=`, no key, a package, a key set twice."""
    good: list[Override] = []
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    for override in overrides:
        problem = _form(override, seen)
        if problem is None:
            good.append(override)
        else:
            problems.append(problem)
        if override.raw is not None:
            seen.setdefault(override.place, override.text)
    return good, problems


def _form(override: Override, seen: Mapping[str, str]) -> Problem | None:
    text, key = override.text, override.key
    if override.raw is None and override.prefix != "~":
        return Problem(text, "not of the form key=value", "A run folder is given as run=FOLDER." if "/" in text else "")
    if not key or not all(part.isidentifier() for part in key.replace("/", ".").split(".")):
        return Problem(text, "malformed key")
    if "@" in text.partition("=")[0] and not _goes_inside(override):
        why = "a group has one place in the configuration, and @ puts a further file of it below that place"
        return Problem(text, why, f"It has the form {key}@{key}.SECTION.NAME=CHOICE.", key)
    if override.place in seen:
        where = override.place
        return Problem(text, f"{where} is set twice, first by {seen[where]}", "Keep one of them.", key)
    return None


def _goes_inside(override: Override) -> bool:
    """Whether the file of a group is to go below that group: `loss@loss.terms.main`."""
    parts = override.package.split(".")
    return len(parts) > 1 and parts[0] == override.key and all(part.isidentifier() for part in parts)


def check_groups(
    overrides: Sequence[Override], tree: Tree, defaults: Mapping[str, str | None], *, multirun: bool
) -> tuple[list[Setting], list[Problem]]:
    """Check the overrides that choose from a group, for the group itself or for a place below it.

    Only a group that is empty by default may be left empty.
    """
    good: list[Setting] = []
    problems: list[Problem] = []
    for override in overrides:
        if override.key not in defaults or override.prefix:
            continue
        names = tree.names(override.key)
        values = (override.raw,) if override.is_malformed else override.values
        may_be_empty = defaults[override.key] is None and not override.package
        wrong = [value for value in values if value not in names and not (value is None and may_be_empty)]
        if wrong:
            problems.append(_unknown_choice(override, _as_typed(wrong[0]), names, tree))
        elif override.is_sweep and not multirun:
            problems.append(_sweep(override))
        else:
            good.append(Setting(override.place, tuple("null" if value is None else value for value in values)))
    return good, problems


def _unknown_choice(override: Override, word: str, names: Sequence[str], tree: Tree) -> Problem:
    near = nearest_word(word, names)
    hint = f"Did you mean {override.place}={near}?" if near else ""
    roots = {leaf.key for name in names for leaf in tree.leaves("", {override.key: name}).values()}
    if "/" in word and f"{override.key}.root" in roots:
        hint = f"Did you mean {override.key}.root={word}?"
    return Problem(
        override.text, f"{override.key} has no choice {word!r}; it has {', '.join(names)}", hint, override.key
    )


def check_values(
    overrides: Sequence[Override], schema: Schema, *, multirun: bool
) -> tuple[list[Setting], list[Problem]]:
    """Check the overrides that set a key: is it known, and is the value of its type?"""
    good: list[Setting] = []
    problems: list[Problem] = []
    for override in overrides:
        result = _judge(override, schema, multirun)
        if isinstance(result, Setting):
            good.append(result)
        else:
            problems.append(result)
    return good, problems


def _judge(override: Override, schema: Schema, multirun: bool) -> Setting | Problem:
    key = override.key
    leaf = schema.leaves.get(key)
    if override.prefix:
        return _prefixed(override, schema)
    if override.package:
        return Problem(override.text, f"there is no group {key}", key=key)
    if leaf is None and schema.is_open(key):
        if override.is_malformed:
            return Problem(override.text, "malformed value", key=key)
        many = override.is_sweep and not multirun
        return _sweep(override) if many else Setting(key, override.values, below_open=True)
    if leaf is None and f"{key}._target_" in schema.leaves and override.values == (None,):
        return Setting(key, override.values)  # one part of several, such as a transform of a recipe, left out
    if leaf is None:
        return _unknown_key(override, schema)
    if override.is_interpolated:
        return Setting(key, (override.raw,))
    kind = leaf.comment.type if leaf.comment else None
    values = _read_by_type(override, kind)
    if values is None:
        return Problem(override.text, f"malformed value{_expected(kind)}", key=key)
    if override.is_sweep and len(values) > 1 and not multirun:
        return _sweep(override, kind)
    for value in values:
        if kind is not None and not kind.accepts(value):
            return wrong_value(leaf, value, text=override.text)
    return Setting(key, values)


def _read_by_type(override: Override, kind: ValueType | None) -> tuple[Any, ...] | None:
    """The values as the type of the key asks for them; None where they cannot be read.

    Where text is wanted, text is what was typed, whatever Hydra reads in it: `run_name=001` is not the
    number 1, and a path may hold commas, brackets and equals signs.
    """
    takes_text = kind is not None and kind.has("str", "path", "choice")
    if override.is_malformed:
        return _read_text(override.raw or "", kind) if kind is not None and takes_text else None
    if kind is None or not takes_text:
        return override.values
    if override.is_sweep:
        return (override.raw,) if kind.has("path") else tuple(_as_text(value, kind) for value in override.values)
    return tuple(_as_text(value, kind, override.raw) for value in override.values)


def _read_text(raw: str, kind: ValueType) -> tuple[Any, ...] | None:
    """What Hydra's grammar refuses, as text: `[~/a,~/b]` where a list of paths may stand."""
    if raw.startswith("[") and raw.endswith("]"):
        items = [item.strip() for item in raw[1:-1].split(",")]
        if kind.accepts(items):
            return (items,)
    return (raw,) if raw else None


def _as_text(value: object, kind: ValueType, raw: str | None = None) -> object:
    if kind.accepts(value) or value is None:
        return value
    return raw if raw is not None and kind.accepts(raw) else value


def wrong_value(leaf: Leaf, value: object, *, text: str = "") -> Problem:
    """The problem of a value that is not of its key's type."""
    kind = leaf.comment.type if leaf.comment else None
    near = nearest_word(value, kind.choices) if kind is not None and isinstance(value, str) else ""
    hint = f"Did you mean {leaf.key}={near}?" if near else ""
    if kind is not None and isinstance(value, str) and value.lower() in ("yes", "no", "on", "off") and kind.has("bool"):
        hint = "Write true or false."
    found = repr(value) if isinstance(value, str) else _as_typed(value)
    return Problem(text or f"{leaf.key}={value}", f"{found} does not fit{_expected(kind)}", hint, leaf.key)


def _as_typed(value: object) -> str:
    """As the command line writes it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _expected(kind: ValueType | None) -> str:
    return f"; expected {kind.text}" if kind is not None else ""


def _prefixed(override: Override, schema: Schema) -> Problem:
    why = "keys are never removed" if override.prefix == "~" else "keys are set, never added"
    key, plain = override.key, override.text.lstrip("+~")
    if key in schema.leaves or key in schema.choices or schema.is_open(key):
        return Problem(override.text, why, "" if override.prefix == "~" else f"Write {plain}.", key)
    unknown = _unknown_key(override, schema)
    return Problem(override.text, f"{why}, and {unknown.why}", unknown.hint, key, unknown.suggestion)


def _unknown_key(override: Override, schema: Schema) -> Problem:
    key = override.key
    below = [name for name in schema.leaves if name.startswith(f"{key}.")]
    if below:
        return Problem(override.text, f"{key} is a section; its keys are {_some(below)}", key=key)
    elsewhere = schema.elsewhere(key)
    near = "" if elsewhere else nearest_key(key, [*schema.leaves, *schema.choices])
    hint = f"Did you mean {near}?" if near else elsewhere
    beside = [name for name in schema.leaves if name.rpartition(".")[0] == key.rpartition(".")[0]]
    if not hint and beside:
        hint = f"Its section has {_some(beside)}."
    return Problem(override.text, f"unknown key {key}", hint, key, near)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")


def _sweep(override: Override, kind: ValueType | None = None) -> Problem:
    takes_list = kind is not None and any(form.depth for form in kind.alternatives)
    as_list = f"For a list write {override.key}=[{override.raw}]; for" if takes_list else "For"
    return Problem(
        override.text, "several values make a sweep", f"{as_list} one run each give --multirun.", override.key
    )


def check_composed(values: Mapping[str, Any], leaves: Mapping[str, Leaf]) -> Iterator[Problem]:
    """Check every composed value: what a file or an interpolation gave is checked like what was typed."""
    for key, leaf in leaves.items():
        if key not in values or leaf.comment is None:
            continue
        if values[key] == "???":
            yield Problem(key, "must be given", leaf.text, key)
        elif not leaf.comment.type.accepts(values[key]):
            yield wrong_value(leaf, values[key])


def check_files(schema: Schema) -> Iterator[Problem]:
    """Check the keys of the files that set others' keys (experiments): a typing mistake there would set nothing."""
    files = {group: schema.tree.file(f"{group}/{choice}") for group, choice in schema.choices.items() if choice}
    own = {
        group: choice
        for group, choice in schema.choices.items()
        if not (file := files.get(group)) or not file.is_global
    }
    known = schema.tree.leaves(schema.verb, own)
    for file in files.values():
        for leaf in file.leaves if file is not None and file.is_global else ():
            if leaf.key not in known and not schema.is_open(leaf.key):
                near = nearest_key(leaf.key, known)
                hint = f"Did you mean {near}?" if near else ""
                yield Problem(f"{leaf.key} in {leaf.where}", f"unknown key {leaf.key}", hint, leaf.key, near)

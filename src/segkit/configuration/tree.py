"""The YAML tree read as text: which verbs, groups, choices and keys there are, and what their comments say.

Nothing here imports Hydra: the help is written from this, within milliseconds, and the checks take the types
of the keys from it. What Hydra composes is another matter (`composition`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import yaml

from segkit.configuration.value_types import Comment, parse_comment
from segkit.errors import UsageError

_PACKAGE = "# @package"
# libyaml reads the tree ten times as fast; PyYAML can be built without it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def config_dir() -> Path:
    """The folder of segkit's YAML tree: inside the installed package, else of the checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parents[1] / "configs"


@dataclass(frozen=True)
class Leaf:
    """One key of the configuration.

    Args:
        key: Dotted, from the root of the composed configuration.
        default: Its value as written in the file.
        text: Its comment as written in the file.
        comment: The comment as type, unit and meaning; None where it does not follow the grammar.
        where: File and line.
    """

    key: str
    default: str
    text: str
    comment: Comment | None
    where: str

    @property
    def is_open(self) -> bool:
        """Whether further keys may be set below it."""
        return self.comment is not None and self.comment.type.has("dict")


@dataclass(frozen=True)
class ConfigFile:
    """One YAML file.

    Args:
        header: The comment at its top.
        is_global: Whether its keys are those of the root (`@package _global_`) instead of its group's.
        includes: Other choices of the same group that it starts from, `choice@section` where one goes below a section.
        choices: The choice it makes by default in each group; None where it makes none.
        overrides: The choices it changes.
        leaves: Its keys, relative to its package.
    """

    header: str
    is_global: bool
    includes: tuple[str, ...]
    choices: Mapping[str, str | None]
    overrides: Mapping[str, str]
    leaves: tuple[Leaf, ...]


@dataclass(frozen=True)
class Tree:
    """The files of several folders, as Hydra searches them: the first that has a file wins."""

    roots: tuple[Path, ...]

    def file(self, name: str) -> ConfigFile | None:
        """The file `name`, given without its ending; None where there is none."""
        for root in self.roots:
            if (path := root / f"{name}.yaml").is_file():
                return read_config_file(path)
        return None

    def names(self, group: str = "") -> tuple[str, ...]:
        """Choices of a group; without one the names of the files at the top, which are the verbs."""
        return tuple(sorted({path.stem for root in self.roots for path in (root / group).glob("*.yaml")}))

    def groups(self) -> tuple[str, ...]:
        """Folders that hold YAML files."""
        return tuple(sorted({path.parent.name for root in self.roots for path in root.glob("*/*.yaml")}))

    def choices(self, name: str, chosen: Mapping[str, str]) -> dict[str, str | None]:
        """The choice in each group of the file `name`, after those of the user."""
        top = self.file(name)
        if top is None:
            return {}
        default: dict[str, str | None] = {}
        for other in top.includes:
            default |= self.choices(other, {})
        default |= top.choices
        result = default | {group: choice for group, choice in chosen.items() if group in default}
        for group, choice in tuple(result.items()):
            file = self.file(f"{group}/{choice}")
            for other, theirs in file.overrides.items() if file else ():
                result[other] = chosen.get(other, theirs)
        return result

    def leaves(self, name: str, choices: Mapping[str, str | None]) -> dict[str, Leaf]:
        """Every key of the file `name` with these choices, in the order of the files.

        A choice belongs to a group, or to a place below one: `loss@loss.terms.main`.
        A key that a later file sets again keeps the comment of the file that introduced it.
        """
        result: dict[str, Leaf] = {}
        for leaf in self._file_leaves(name, ""):
            result[leaf.key] = leaf
        for place, choice in choices.items():
            group, _, package = place.partition("@")
            for leaf in self._file_leaves(f"{group}/{choice}", package or group) if choice else ():
                first = result.get(leaf.key)
                kept = leaf if first is None else replace(first, default=leaf.default, where=leaf.where)
                result[leaf.key] = kept
        return result

    def _file_leaves(self, name: str, group: str) -> Iterator[Leaf]:
        file = self.file(name)
        if file is None:
            return
        own = {leaf.key: leaf for leaf in file.leaves}
        beside = name[: name.rfind("/") + 1]
        included: dict[str, Leaf] = {}
        for other in file.includes:
            choice, _, package = other.partition("@")
            included |= {leaf.key: leaf for leaf in self._file_leaves(beside + choice, package)}
        merged = included | own
        for key, leaf in included.items():
            if key in own:
                merged[key] = replace(leaf, default=own[key].default, where=own[key].where)
        prefix = f"{group}." if group and not file.is_global else ""
        for key, leaf in merged.items():
            yield replace(leaf, key=prefix + key)


@cache
def read_config_file(path: Path) -> ConfigFile:
    """Read one YAML file with its comments.

    Raises:
        UsageError: If it is not YAML, or not a mapping.
    """
    text = path.read_text(encoding="utf-8")
    try:
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise UsageError("a configuration file is not YAML", where=str(path), why=str(error)) from error
    if root is not None and not isinstance(root, yaml.MappingNode):
        raise UsageError("a configuration file must hold keys and values", where=str(path))
    lines = text.splitlines()
    entries = [] if root is None else root.value
    head = lines[: entries[0][0].start_mark.line] if entries else lines
    includes, choices, overrides = _defaults(entries)
    return ConfigFile(
        header="\n".join(line.lstrip("# ") if line.strip() != "#" else "" for line in _header(head)),
        is_global=any(line.startswith(_PACKAGE) and "_global_" in line for line in head),
        includes=includes,
        choices=choices,
        overrides=overrides,
        leaves=tuple(_leaves(entries, lines, prefix="", path=path)),
    )


def _header(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("#") and not line.startswith(_PACKAGE)]


Entries = list[tuple[yaml.Node, yaml.Node]]


def _defaults(entries: Entries) -> tuple[tuple[str, ...], dict[str, str | None], dict[str, str]]:
    includes: list[str] = []
    choices: dict[str, str | None] = {}
    overrides: dict[str, str] = {}
    for key, node in entries:
        if key.value != "defaults":
            continue
        for item in node.value:
            if isinstance(item, yaml.ScalarNode):
                includes += [] if item.value == "_self_" else [item.value]
                continue
            for name, choice in item.value:
                if name.value.startswith("override "):
                    overrides[name.value.removeprefix("override ").strip().lstrip("/")] = choice.value
                else:
                    choices[name.value.lstrip("/")] = None if choice.value in ("null", "~") else choice.value
    return tuple(includes), choices, overrides


def _leaves(entries: Entries, lines: list[str], *, prefix: str, path: Path) -> Iterator[Leaf]:
    for key, node in entries:
        if not prefix and key.value == "defaults":
            continue
        name = f"{prefix}{key.value}"
        text = _comment(key, node, lines)
        comment = parse_comment(text)
        is_dict = comment is not None and comment.type.has("dict")
        if isinstance(node, yaml.MappingNode) and node.value and not is_dict:
            yield from _leaves(node.value, lines, prefix=f"{name}.", path=path)
            continue
        line = node.start_mark.line
        in_line = line == node.end_mark.line
        default = lines[line][node.start_mark.column : node.end_mark.column] if in_line else "..."
        yield Leaf(name, default, text, comment, f"{path}:{line + 1}")


def _comment(key: yaml.Node, node: yaml.Node, lines: list[str]) -> str:
    """The comment behind a value, with the comment lines below it that are indented deeper than the key."""
    block = isinstance(node, yaml.CollectionNode) and not node.flow_style
    mark = key.end_mark if block else node.end_mark
    parts = [lines[mark.line][mark.column :].lstrip(": ") if mark.line < len(lines) else ""]
    for line in lines[mark.line + 1 :]:
        stripped = line.lstrip()
        if not stripped.startswith("#") or len(line) - len(stripped) <= key.start_mark.column:
            break
        parts.append(stripped)
    return " ".join(part.lstrip("# ").rstrip() for part in parts if part.startswith("#"))

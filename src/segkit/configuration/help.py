"""`--help`: written from the comments of the YAML files, without importing Hydra, torch or numpy."""

import textwrap
from collections.abc import Mapping, Sequence

from segkit.configuration.tree import Leaf, Tree

_WIDTH = 100

_OPTIONS = """\
  -h, --help          this text; `--help network=custom` shows the keys of that choice
  --cfg job           print the resolved configuration and stop
  -m, --multirun      one job for each combination of comma-separated values: optimizer.lr=1e-2,1e-3
  --config-dir DIR    a folder with your own files, laid out as the groups below
  --config-name NAME  start from this file at its top instead"""


def render_help(verb: str, tree: Tree, *, chosen: Mapping[str, str] | None = None) -> str:
    """The help of a verb: what it does, its options, groups and keys with type, unit, meaning and default.

    Args:
        verb: Name of the verb, or of another file at the top of the tree.
        tree: Where the files lie.
        chosen: Choices of the user; the keys shown are theirs.
    """
    file = tree.file(verb)
    header = file.header if file else ""
    choices = tree.choices(verb, chosen or {})
    parts = [
        f"usage: python -m segkit.{verb} [group=choice ...] [key=value ...]",
        header,
        f"Options:\n{_OPTIONS}",
    ]
    if choices:
        parts.append("Groups (* is chosen):\n" + "\n".join(_group(tree, name, choices) for name in choices))
    leaves = tree.leaves(verb, choices).values()
    keys = [_key(leaf) for leaf in leaves if not _is_hidden(leaf, choices)]
    parts.append("Keys (with their defaults):\n" + "\n".join(keys))
    return "\n\n".join(parts) + "\n"


def render_overview(tree: Tree, verbs: Sequence[str]) -> str:
    """The help of the console script: one line a verb."""
    lines = ["usage: segkit VERB [group=choice ...] [key=value ...]", "", "Verbs:"]
    for verb in verbs:
        file = tree.file(verb)
        lines.append(f"  {verb:<10}{file.header.splitlines()[0] if file and file.header else ''}")
    return "\n".join([*lines, "", "`segkit VERB --help` lists the keys of a verb.", ""])


def _group(tree: Tree, name: str, choices: Mapping[str, str | None]) -> str:
    words = [f"{word}*" if word == choices[name] else word for word in tree.names(name)]
    return f"  {name:<14}{' '.join(words)}"


def _key(leaf: Leaf) -> str:
    indent = " " * 6
    meaning = textwrap.fill(leaf.text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return f"  {leaf.key}={leaf.default}" + (f"\n{meaning}" if leaf.text else "")


def _is_hidden(leaf: Leaf, choices: Mapping[str, str | None]) -> bool:
    """Class paths that a choice fixes, and the key that shadows a group of the same name."""
    fixed = leaf.key.endswith("_target_") and leaf.default != "???"
    return fixed or leaf.key in choices

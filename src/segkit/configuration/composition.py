"""From a verb and its overrides to one plain, resolved, checked dictionary.

Hydra composes the files of the chosen groups; the values are then set here, key by key, after each was
checked. Hydra's global state is put aside and put back, so that a notebook, another Hydra program or a second
call in the same process is not disturbed.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segkit.configuration.checks import (
    Schema,
    Setting,
    check_composed,
    check_files,
    check_form,
    check_groups,
    check_values,
)
from segkit.configuration.overrides import read_overrides
from segkit.configuration.problems import Problem, usage_error
from segkit.configuration.rules import check_rules
from segkit.configuration.tree import Leaf, Tree, config_dir
from segkit.errors import UsageError


def compose(
    verb: str,
    overrides: Sequence[str] = (),
    *,
    config_dirs: Sequence[Path] = (),
    config_name: str | None = None,
    problems: Sequence[Problem] = (),
) -> dict[str, Any]:
    """The resolved configuration of a verb.

    Args:
        verb: Name of the verb.
        overrides: `group=choice` and `key=value`, as on the command line.
        config_dirs: Folders with further files of the user.
        config_name: File at the top, where it is not the verb's own.
        problems: What was already found wrong with the command line, to be told together with the rest.

    Returns:
        A nested dictionary of numbers, strings, lists, booleans and None.

    Raises:
        UsageError: All problems at once.
    """
    name = config_name or verb
    checked = check(verb, overrides, config_dirs=config_dirs, config_name=name, multirun=False)
    found = [*problems, *checked.problems]
    config, values = _apply(checked.base, checked.settings, found)
    concerned = {problem.key for problem in found if problem.key}
    meant = {problem.suggestion for problem in found}
    for problem in check_composed(values, checked.leaves):
        if problem.key not in concerned and not (problem.key in meant and values[problem.key] == "???"):
            found.append(problem)
    if not found:
        found += check_rules(config)
    if found:
        raise usage_error(verb, found)
    return _normalised(config, checked.leaves)


@dataclass(frozen=True)
class Checked:
    """Overrides after the checks: the files composed by Hydra, what is to be set in them, and what is wrong."""

    base: dict[str, Any]
    leaves: Mapping[str, Leaf]
    settings: Sequence[Setting]
    problems: Sequence[Problem]


def check(
    verb: str,
    overrides: Sequence[str],
    *,
    config_dirs: Sequence[Path] = (),
    config_name: str | None = None,
    multirun: bool,
) -> Checked:
    """Check every override of a verb; see `compose` for the arguments.

    Args:
        verb: Name of the verb.
        overrides: As on the command line.
        config_dirs: Folders with further files.
        config_name: File at the top.
        multirun: Whether several values for one key are allowed.
    """
    name = config_name or verb
    tree = Tree(_search_order(name, [config_dir(), *(path.resolve() for path in config_dirs)]))
    good, problems = check_form(read_overrides(overrides))
    defaults = tree.choices(name, {})
    chosen, wrong_groups = check_groups(good, tree, defaults, multirun=multirun)
    try:
        base, choices = _compose_files(name, [_to_hydra(group) for group in chosen], tree.roots)
    except (HydraException, OmegaConfBaseException) as error:
        files = Problem(f"{name}.yaml", f"its files cannot be composed: {error}")
        raise usage_error(verb, [*problems, *wrong_groups, files]) from error
    typed = tree.leaves(name, choices)
    leaves = {key: typed.get(key, Leaf(key, "", "", None, "")) for key in _keys(base, typed)}
    schema = Schema(name, tree, choices, leaves)
    rest = [
        override
        for override in good
        if (override.prefix or override.key not in defaults) and not _is_hydras(override.key, multirun)
    ]
    settings, wrong_values = check_values(rest, schema, multirun=multirun)
    order = {text: position for position, text in enumerate(overrides)}
    found = sorted([*problems, *wrong_groups, *wrong_values], key=lambda problem: order[problem.text])
    return Checked(base, leaves, settings, [*found, *check_files(schema)])


def _search_order(name: str, folders: Sequence[Path]) -> tuple[Path, ...]:
    """The folders, first the one that has the file at the top: Hydra looks for that file nowhere else."""
    having = [folder for folder in folders if (folder / f"{name}.yaml").is_file()]
    if not having:
        where = ", ".join(map(str, folders))
        raise UsageError(f"there is no configuration file {name}.yaml", where=where, mend="see --config-name")
    return (having[0], *(folder for folder in folders if folder != having[0]))


def _to_hydra(group: Setting) -> str:
    """The choice in Hydra's words: a file below its group is one more, which Hydra wants added."""
    return f"{'+' if '@' in group.key else ''}{group.key}={group.values[0]}"


def _is_hydras(key: str, multirun: bool) -> bool:
    """Hydra's own keys: only a sweep has a use for them (its sweeper, its launcher)."""
    return multirun and key.split(".")[0].split("/")[0] == "hydra"


def _compose_files(
    name: str, groups: Sequence[str], roots: Sequence[Path]
) -> tuple[dict[str, Any], dict[str, str | None]]:
    """The files of the chosen groups, interpolations as written, and the choice in each group; the caller's own."""
    if tuple(roots) != (config_dir(),):  # what a user's files come to may depend on anything, the environment for one
        return _by_hydra(name, groups, roots)
    files = sorted(path for level in ("*.yaml", "*/*.yaml") for path in roots[0].glob(level))
    versions = tuple((str(path), (found := path.stat()).st_mtime_ns, found.st_size) for path in files)
    plain, choices = _known(name, tuple(groups), tuple(roots), versions)
    return copy.deepcopy(plain), dict(choices)


@lru_cache(maxsize=64)
def _known(
    name: str,
    groups: tuple[str, ...],
    roots: tuple[Path, ...],
    versions: tuple[tuple[str, int, int], ...],  # noqa: ARG001  path, change and bytes of each file
) -> tuple[dict[str, Any], dict[str, str | None]]:
    """Of segkit's own files, once for each choice of groups: 0.15 s of a composition's 0.17 are Hydra's."""
    return _by_hydra(name, groups, roots)


def _by_hydra(name: str, groups: Sequence[str], roots: Sequence[Path]) -> tuple[dict[str, Any], dict[str, str | None]]:
    further = ",".join(f"'file://{root}'" for root in roots[1:])
    search = [f"hydra.searchpath=[{further}]"] if further else []
    with own_hydra(), initialize_config_dir(str(roots[0]), version_base="1.3", job_name="segkit"):
        config = hydra_compose(name, overrides=[*groups, *search], return_hydra_config=True)
    taken = config.hydra.runtime.choices
    choices = {str(key): taken[key] for key in taken if not str(key).startswith("hydra/")}
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key != "hydra"}, choices


@contextmanager
def own_hydra() -> Iterator[None]:
    """A Hydra of one's own: the state of whoever runs Hydra in this process is put back afterwards."""
    state = Singleton.get_state()
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        Singleton.set_state(state)


def _apply(
    base: dict[str, Any], settings: Sequence[Setting], problems: list[Problem]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Set the values and resolve; returns the nested dictionary and its leaves. Faults are added to `problems`."""
    composed = OmegaConf.create(base)
    for setting in settings:
        OmegaConf.update(composed, setting.key, setting.values[0], merge=False)
    try:
        config = OmegaConf.to_container(composed, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        problems.append(
            Problem(error.full_key or "an interpolation", str(error).splitlines()[0], key=error.full_key or "")
        )
        return {}, {}
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}, dict(_walk(config, ()))


def _keys(base: Mapping[str, Any], typed: Mapping[str, Leaf]) -> list[str]:
    """Dotted keys of the leaves; a key of type dict is one leaf, unless files have put typed keys below it."""
    stops = tuple(
        key for key, leaf in typed.items() if leaf.is_open and not any(other.startswith(f"{key}.") for other in typed)
    )
    return [key for key, _ in _walk(base, stops)]


def _walk(node: Mapping[Any, Any], stops: Sequence[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and value and key not in stops:
            yield from _walk(value, stops, f"{key}.")
        else:
            yield key, value


def _normalised(config: dict[str, Any], leaves: Mapping[str, Leaf]) -> dict[str, Any]:
    """The same with every value in the form that its type has."""

    def visit(node: object, key: str) -> object:
        leaf = leaves.get(key)
        if leaf is not None:
            return leaf.comment.type.normalised(node) if leaf.comment is not None else node
        if isinstance(node, dict):
            return {name: visit(value, f"{key}.{name}" if key else str(name)) for name, value in node.items()}
        return node

    result = visit(config, "")
    assert isinstance(result, dict)
    return result

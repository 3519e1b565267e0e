"""What every door opens on: arguments in, exit code out.

`--help` is answered from text. Everything else is composed and checked, and only then is the verb's workflow
imported, and torch with it: a typing mistake costs a fraction of a second.
"""

import importlib
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from segkit.configuration.help import render_help
from segkit.configuration.problems import Problem, nearest_word, usage_error
from segkit.configuration.thread_waiting import settle_waiting
from segkit.configuration.tree import Tree, config_dir
from segkit.errors import ExitCode, SegkitError, UsageError, exit_code

_FLAGS = {"-h": "--help", "-m": "--multirun", "-c": "--cfg", "-cd": "--config-dir", "-cn": "--config-name"}
_SWITCHES = ("--help", "--multirun", "--resolve")
_WITH_VALUE = ("--cfg", "--config-dir", "--config-name")


@dataclass
class Request:
    """A command line, sorted into overrides and options."""

    overrides: list[str] = field(default_factory=list)
    switches: set[str] = field(default_factory=set)
    config_dirs: list[Path] = field(default_factory=list)
    config_name: str | None = None
    cfg: str | None = None
    problems: list[Problem] = field(default_factory=list)


def read_arguments(argv: Sequence[str]) -> Request:
    """Sort a command line; what is wrong with an option is kept, to be told with all the rest."""
    request = Request()
    words = iter(argv)
    for word in words:
        if not word.startswith("-"):
            request.overrides.append(word)
            continue
        name, equals, value = word.partition("=")
        option = _FLAGS.get(name, name)
        if option in _SWITCHES:
            request.switches.add(option)
        elif option in _WITH_VALUE:
            _take(request, option, value if equals else next(words, ""))
        else:
            near = nearest_word(name, (*_SWITCHES, *_WITH_VALUE))
            hint = f"Did you mean {near}?" if near else "Keys are set without dashes, as key=value."
            request.problems.append(Problem(word, "unknown option", hint))
    return request


def _take(request: Request, option: str, value: str) -> None:
    if option == "--cfg":
        request.cfg = value
        if value != "job":
            request.problems.append(
                Problem(f"--cfg {value}".strip(), "only the job's configuration is there to show", "Write --cfg job.")
            )
    elif option == "--config-name":
        request.config_name = value.removesuffix(".yaml")
    elif Path(value).is_dir() and value:
        request.config_dirs.append(Path(value))
    else:
        request.problems.append(Problem(f"--config-dir {value}".strip(), "there is no such folder"))


def main(verb: str, argv: Sequence[str]) -> int:
    """Run a verb from its command line.

    Args:
        verb: Name of the verb.
        argv: What was typed after it.

    Returns:
        The exit code of the process.
    """
    request = read_arguments(argv)
    try:
        if "--help" in request.switches:
            sys.stdout.write(_help(verb, request))
            return ExitCode.DONE
        if "--multirun" in request.switches and request.cfg is None:
            return int(importlib.import_module("segkit.configuration.multirun").multirun(verb, request))
        config = resolve(verb, request)
        if request.cfg is not None:
            del config["overrides"]
            sys.stdout.write(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
            return ExitCode.DONE
        run(verb, config)
    except (Exception, KeyboardInterrupt) as error:
        return report(error)
    return ExitCode.DONE


def call(verb: str, overrides: Sequence[str]) -> Any:  # noqa: ANN401  what the workflow returns
    """Run a verb from Python and return what its workflow returns; errors are raised."""
    if isinstance(overrides, str):
        raise TypeError(f'overrides are a list of strings, got one string; write segkit.{verb}(["{overrides}"])')
    return run(verb, resolve(verb, Request(overrides=list(overrides))))


def resolve(verb: str, request: Request) -> dict[str, Any]:
    """The checked configuration of a request; `overrides` keeps what was typed, for the line that resumes a run."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        why = "it was deleted, and relative paths lead nowhere"
        raise UsageError("The working directory is gone.", why=why, mend="cd to a folder that is there") from error
    config: dict[str, Any] = importlib.import_module("segkit.configuration.composition").compose(
        verb,
        request.overrides,
        config_dirs=request.config_dirs,
        config_name=request.config_name,
        problems=request.problems,
    )
    return {**config, "overrides": list(request.overrides)}


def run(verb: str, config: dict[str, Any]) -> Any:  # noqa: ANN401  what the workflow returns
    """Hand a configuration to the verb's workflow.

    Torch is imported by it, and reads then how its threads wait.
    """
    settle_waiting()
    return importlib.import_module(f"segkit.workflows.{verb}").run(config)


def report(error: BaseException) -> ExitCode:
    """Say on stderr what went wrong, and give the exit code; only a bug shows its traceback."""
    code = exit_code(error)
    if isinstance(error, KeyboardInterrupt):
        sys.stderr.write("\nInterrupted.\n")
    elif isinstance(error, SegkitError) or code != ExitCode.BUG:
        sys.stderr.write(f"\n{error}\n")
    else:
        traceback.print_exception(error, file=sys.stderr)
        sys.stderr.write("\nThis is a bug in segkit. Please report it with the lines above.\n")
    return code


def _help(verb: str, request: Request) -> str:
    tree = Tree((config_dir(), *request.config_dirs))
    words = (override.partition("=") for override in request.overrides)
    chosen = {group: choice for group, _, choice in words if choice in tree.names(group)}
    if request.problems:
        raise usage_error(verb, request.problems)
    return render_help(request.config_name or verb, tree, chosen=chosen)

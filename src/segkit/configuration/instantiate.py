"""From a dictionary with `_target_` to an object: the constructor's signature is the schema.

    {"_target_": "package.module.Class", "width": 32, "args": {"depth": 4}, "inner": {"_target_": ...}}

is `Class(width=32, depth=4, inner=...)`. Arguments that the plan knows (`supplied`) are filled in where the
signature names them and the dictionary leaves them out or says null. Lists become tuples, so that no object
shares them with the configuration.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from segkit.configuration.problems import nearest_word
from segkit.configuration.trust import refuse_fetching, require_trusted_class, require_trusted_path
from segkit.errors import UsageError

TARGET = "_target_"


def instantiate(
    node: Mapping[str, Any], *, where: str, supplied: Mapping[str, Any] | None = None, trust: bool = False
) -> Any:  # noqa: ANN401  whatever the target makes
    """Build the object that a node describes, and those inside it.

    Args:
        node: The dictionary.
        where: Its key in the configuration, for messages.
        supplied: Arguments that are filled in where a constructor names them.
        trust: Whether classes outside segkit, MONAI and torch may be built: True for what the user typed, False
            for what a run folder says.

    Raises:
        UsageError: If the target cannot be found or trusted, or does not take the arguments.
    """
    return make_factory(node, where=where, supplied=supplied, trust=trust)()


def make_factory(
    node: Mapping[str, Any],
    *,
    where: str,
    supplied: Mapping[str, Any] | None = None,
    trust: bool = False,
    later: tuple[str, ...] = (),
) -> Callable[..., Any]:
    """A function that builds the object when it is called with the arguments that are known only then.

    Args:
        node: As for `instantiate`.
        where: As for `instantiate`.
        supplied: As for `instantiate`.
        trust: As for `instantiate`.
        later: Names of the arguments that the caller will give. One that the target does not take is left out
            of its call, so that `torch.optim.lr_scheduler.StepLR` serves without `total_steps`.

    Raises:
        UsageError: At once, not first when the function is called.
    """
    _require_node(node, where=where)
    target = locate(str(node.get(TARGET, "")), where=where, trust=trust)
    given = {name: value for name, value in node.items() if name not in (TARGET, "args")} | dict(node.get("args") or {})
    arguments = {
        name: _value(value, where=f"{where}.{name}", supplied=supplied or {}, trust=trust)
        for name, value in given.items()
    }
    signature = _signature(target)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    for name, value in (supplied or {}).items():
        if name in signature.parameters and arguments.get(name) is None:
            arguments[name] = value
    taken_later = tuple(name for name in later if takes_any or name in signature.parameters)
    _check_call(signature, arguments, taken_later, target=target, where=where, takes_any=takes_any)
    if not trust:
        refuse_fetching(signature, arguments, target=_name(target), where=where)
    # What a run folder says can make a constructor stumble in any way; what the user typed is his to see whole.
    stumbles: tuple[type[Exception], ...] = (ValueError,) if trust else (Exception,)

    def build(*positional: Any, **keywords: Any) -> Any:  # noqa: ANN401
        kept = {name: value for name, value in keywords.items() if name in taken_later}
        try:
            return target(*positional, **arguments, **kept)
        except stumbles as error:
            what = f"{_name(target)} cannot be built with these arguments"
            why = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {str(error)[:500]}"
            raise UsageError(what, where=where, why=why) from error

    return build


def locate(path: str, *, where: str, trust: bool) -> Callable[..., Any]:
    """The class or function at an import path.

    Without `trust` it must come from the parts of segkit, MONAI and torch that hold networks, losses, optimizers
    and schedules, by the path (nothing else is even imported) as well as by where it was defined:
    `segkit.losses.dice.torch.load` begins like one of ours and is not.

    Raises:
        UsageError: If there is none, or it is not to be trusted.
    """
    if not trust:
        require_trusted_path(path, where=where)
    found = _import(path, where)
    if not callable(found):
        raise UsageError(f"{path} can be imported but not called", where=f"{where}.{TARGET}")
    if not trust:
        require_trusted_class(found, path, where=where)
    result: Callable[..., Any] = found
    return result


def _require_node(node: object, *, where: str) -> None:
    """Refuse what a damaged configuration may hold in the place of a class and its arguments."""
    args = node.get("args") if isinstance(node, Mapping) else None
    if not isinstance(node, Mapping) or not (args is None or isinstance(args, Mapping)):
        raise UsageError(
            "there is no class with its arguments", where=where, why=f"it is {str(node)[:80]!r}", mend=f"set {where}"
        )
    if odd := [name for name in [*node, *(args or {})] if not isinstance(name, str)]:
        raise UsageError("an argument's name is no text", where=where, why=f"{str(odd[0])[:80]!r}")


def _import(path: str, where: str) -> Any:  # noqa: ANN401
    parts = path.split(".")
    for split in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:split])
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
                continue
            raise UsageError(f"{module} cannot be imported", where=f"{where}.{TARGET}", why=str(error)) from error
        for part in parts[split:]:
            if not hasattr(found, part):
                near = nearest_word(part, dir(found))
                hint = f"did you mean {module}.{near}?" if near else ""
                raise UsageError(
                    f"{module} has no {part}", where=f"{where}.{TARGET}", why=f"{path} was asked for", mend=hint
                )
            found = getattr(found, part)
        return found
    raise UsageError(
        f"{path!r} cannot be imported",
        where=f"{where}.{TARGET}",
        why=f"there is no module {path.rpartition('.')[0] or path!r} on this Python's path",
        mend="give package.module.Class, and start in the folder that holds the package, or install it",
    )


def _value(value: Any, *, where: str, supplied: Mapping[str, Any], trust: bool) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        if TARGET in value:
            return instantiate(value, where=where, supplied=supplied, trust=trust)
        return {k: _value(v, where=f"{where}.{k}", supplied=supplied, trust=trust) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return tuple(
            _value(item, where=f"{where}[{index}]", supplied=supplied, trust=trust) for index, item in enumerate(value)
        )
    return value


def _signature(target: Callable[..., Any]) -> inspect.Signature:
    """The signature of a class or function; one that says nothing for the few in C that have none."""
    try:
        return inspect.signature(target)
    except ValueError:
        return inspect.Signature([inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)])


def _check_call(
    signature: inspect.Signature,
    arguments: Mapping[str, Any],
    later: tuple[str, ...],
    *,
    target: Callable[..., Any],
    where: str,
    takes_any: bool,
) -> None:
    named = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    unknown = [] if takes_any else [name for name in arguments if name not in named]
    if unknown:
        near = nearest_word(unknown[0], named)
        raise UsageError(
            f"{_name(target)} takes no argument {', '.join(unknown)}",
            where=", ".join(f"{where}.{name}" for name in unknown),
            why=f"it takes {', '.join(named)}",
            mend=f"did you mean {near}?" if near else "",
        )
    missing = [
        name
        for name in named
        if signature.parameters[name].default is inspect.Parameter.empty and name not in (*arguments, *later)
    ]
    if missing:
        raise UsageError(
            f"{_name(target)} needs the argument {', '.join(missing)}",
            where=where,
            mend=f"set {', '.join(f'{where}.{name}' for name in missing)}, or {where}.args.* where there is such a key",
        )


def _name(target: Callable[..., Any]) -> str:
    return f"{target.__module__}.{target.__qualname__}"

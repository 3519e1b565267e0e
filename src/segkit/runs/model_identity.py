"""Which models something was fitted for: run, checkpoint, distance of tiles and mirroring decide the logits of each."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard

Models: TypeAlias = Sequence[Mapping[str, Any]]
"""Of each model `run` (its name), `checkpoint` (its step), `step` (of the tiles) and `mirror_axes`."""


def same_models(some: Models, others: Models) -> bool:
    """Whether both are the same models, in any order; other keys are not looked at."""
    return sorted(map(_identity, some)) == sorted(map(_identity, others))


def same_checkpoints(some: Models, others: Models) -> bool:
    """Whether both are the same checkpoints of the same runs, in any order, however they predict."""
    return sorted(map(_checkpoint, some)) == sorted(map(_checkpoint, others))


def keys_that_restore(some: Models, others: Models) -> list[str]:
    """The keys of `predict` and `evaluate` with which `others` predict as `some` did; none where they do.

    Args:
        some: How it was.
        others: The same checkpoints, as they predict now.
    """
    pairs = list(zip(*(sorted(models, key=_checkpoint) for models in (some, others)), strict=True))
    keys = []
    if any(_mirrored(a) != _mirrored(b) for a, b in pairs):
        keys.append(f"mirror={'true' if any(map(_mirrored, some)) else 'false'}")
    if any(a.get("step") != b.get("step") for a, b in pairs):
        steps = {a.get("step") for a, _ in pairs}
        keys.append(f"validation.step={steps.pop() if len(steps) == 1 else 'null'}")
    return keys


def models_text(models: Models) -> str:
    """Each of them in words."""
    return "; ".join(map(_identity, models))


def are_models(value: object) -> TypeGuard[list[dict[str, Any]]]:
    """Whether a value that was read may be the models of something."""
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _identity(model: Mapping[str, Any]) -> str:
    return f"{_checkpoint(model)}, tiles {model.get('step')}, mirrored {_mirrored(model)}"


def _checkpoint(model: Mapping[str, Any]) -> str:
    return f"{model.get('run')} at step {model.get('checkpoint')}"


def _mirrored(model: Mapping[str, Any]) -> Any:  # noqa: ANN401  what was stored, of whatever type
    axes = model.get("mirror_axes")
    return list(axes) if isinstance(axes, list | tuple) else axes

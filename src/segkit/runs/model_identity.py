"""Which models something was fitted for: run, checkpoint, distance of tiles and mirroring decide the logits of each."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard

Models: TypeAlias = Sequence[Mapping[str, Any]]
"""Of each model `run` (its name), `checkpoint` (its step), `step` (of the tiles) and `mirror_axes`."""


def same_models(some: Models, others: Models) -> bool:
    """Whether both are the same models, in any order; other keys are not looked at."""
    return sorted(map(_identity, some)) == sorted(map(_identity, others))


def models_text(models: Models) -> str:
    """Each of them in words."""
    return "; ".join(map(_identity, models))


def are_models(value: object) -> TypeGuard[list[dict[str, Any]]]:
    """Whether a value that was read may be the models of something."""
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _identity(model: Mapping[str, Any]) -> str:
    axes = model.get("mirror_axes")
    mirrored = list(axes) if isinstance(axes, list | tuple) else axes
    return f"{model.get('run')} at step {model.get('checkpoint')}, tiles {model.get('step')}, mirrored {mirrored}"

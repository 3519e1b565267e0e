"""A plan as text: one line a field, the value and the reason."""

import textwrap
from typing import Any

from segkit.planning.plan import Normalisation, Plan

_WIDTH = 118


def describe_plan(plan: Plan) -> str:
    """Every field, its value and why it has it."""
    values = {
        "name": plan.name,
        "channels": ", ".join(plan.channels),
        "classes": ", ".join(plan.labels.names) + (" (instances)" if plan.labels.kind == "instances" else ""),
        "spacing": f"{_by([f'{s:g}' for s in plan.spacing])} {plan.unit}",
        "normalisation": ", ".join(_scheme(channel) for channel in plan.normalisation),
        "patch_size": _by(plan.patch_size),
        "batch_size": str(plan.batch_size),
        "features": ", ".join(str(f) for f in plan.features),
        "strides": ", ".join(_by(s) for s in plan.strides),
        "kernel_sizes": ", ".join(_by(k) for k in plan.kernel_sizes),
        "blocks_per_stage": ", ".join(str(b) for b in plan.blocks_per_stage),
        "batch_dice": str(plan.batch_dice).lower(),
        "steps_per_epoch": str(plan.steps_per_epoch),
        "max_epochs": str(plan.max_epochs),
        "learning_rate": f"{plan.learning_rate:g}",
        "ema_decay": f"{plan.ema_decay:g}" if plan.ema_decay else "none",
        "validation_every_n_epochs": str(plan.validation_every_n_epochs),
        "precision": plan.precision,
        "tile_batch": str(plan.tile_batch),
        "channels_last": str(plan.channels_last).lower(),
        "compile": str(plan.compile).lower(),
        "flip_axes": ", ".join(str(axis) for axis in plan.flip_axes) or "none",
    }
    wide = max(len(name) for name in values)
    lines = []
    for name, value in values.items():
        lines += textwrap.wrap(value, _WIDTH, initial_indent=f"{name:<{wide}}  ", subsequent_indent=" " * (wide + 2))
        if reason := plan.reasons.get(name):
            indent = " " * (wide + 4)
            lines += textwrap.wrap(f"because: {reason}", _WIDTH, initial_indent=indent, subsequent_indent=indent)
    return "\n".join(lines)


def _by(values: Any) -> str:  # noqa: ANN401  numbers or their text
    return "x".join(str(value) for value in values)


def _scheme(channel: Normalisation) -> str:
    if channel.scheme == "ct":
        return f"ct ({channel.low:g} to {channel.high:g}, mean {channel.mean:g}, std {channel.std:g})"
    return f"masked {channel.scheme}" if channel.masked else channel.scheme

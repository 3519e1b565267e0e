"""What a plan read from a file must be before anything is built or measured by it.

A plan is data from others where its run is. A word in the place of a number, a patch of 10^12 voxels or a third
spacing of a picture would be found out deep within a network, without a name, or by the machine's memory.
"""

import math
from collections.abc import Mapping
from typing import Any, get_args

from segkit.planning.plan import Plan, Precision, Scheme

MAX_PATCH_VOXELS = 2**31
MAX_COUNT = 2**31


def implausible(plan: Plan) -> str | None:
    """The first field that cannot be what a plan says, with its value; None where there is none."""
    axes, stages = plan.dimensions, len(plan.features) if isinstance(plan.features, tuple) else 0
    rules: Mapping[str, bool] = {
        "name": isinstance(plan.name, str),
        "dimensions": _count(axes) and axes in (2, 3),
        "channels": _words(plan.channels) and len(plan.channels) > 0,
        "labels": _labels(plan),
        "spacing": _reals(plan.spacing, axes),
        "unit": plan.unit in ("mm", "pixel"),
        "normalisation": len(plan.normalisation) == len(plan.channels)
        and all(_normalisation(one) for one in plan.normalisation),
        "patch_size": _counts(plan.patch_size, axes) and math.prod(plan.patch_size) <= MAX_PATCH_VOXELS,
        "batch_size": _count(plan.batch_size),
        "features": _counts(plan.features, stages) and stages > 0,
        "strides": _sizes(plan.strides, stages, axes),
        "kernel_sizes": _sizes(plan.kernel_sizes, stages, axes),
        "blocks_per_stage": _counts(plan.blocks_per_stage, stages),
        "batch_dice": isinstance(plan.batch_dice, bool),
        "steps_per_epoch": _count(plan.steps_per_epoch),
        "max_epochs": _count(plan.max_epochs),
        "learning_rate": _real(plan.learning_rate),
        "ema_decay": plan.ema_decay == 0 or (_real(plan.ema_decay) and plan.ema_decay < 1),
        "validation_every_n_epochs": _count(plan.validation_every_n_epochs),
        "precision": plan.precision in get_args(Precision),
        "tile_batch": _count(plan.tile_batch),
        "channels_last": isinstance(plan.channels_last, bool),
        "compile": isinstance(plan.compile, bool),
        "flip_axes": isinstance(plan.flip_axes, tuple) and set(plan.flip_axes) <= set(range(axes)),
    }
    wrong = next((field for field, holds in rules.items() if not holds), None)
    return None if wrong is None else f"{wrong} is {str(getattr(plan, wrong))[:200]}"


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_COUNT


def _counts(value: object, length: int) -> bool:
    return isinstance(value, tuple) and len(value) == length and all(_count(item) for item in value)


def _sizes(value: object, length: int, axes: int) -> bool:
    return isinstance(value, tuple) and len(value) == length and all(_counts(item, axes) for item in value)


def _real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _reals(value: object, length: int) -> bool:
    return isinstance(value, tuple) and len(value) == length and all(_real(item) for item in value)


def _words(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, str) for item in value)


def _labels(plan: Plan) -> bool:
    labels = plan.labels
    ids: tuple[Any, ...] = labels.ids
    whole = all(isinstance(i, int) and not isinstance(i, bool) and abs(i) < MAX_COUNT for i in ids)
    return (
        _words(labels.names)
        and len(labels.names) == len(ids) > 1
        and whole
        and labels.kind in ("semantic", "instances")
        and (labels.ignore_id is None or isinstance(labels.ignore_id, int))
    )


def _normalisation(one: Any) -> bool:  # noqa: ANN401  whatever the file says
    numbers = (one.mean, one.std, one.low, one.high)
    return (
        one.scheme in get_args(Scheme)
        and isinstance(one.masked, bool)
        and all(n is None or (isinstance(n, int | float) and math.isfinite(n)) for n in numbers)
    )

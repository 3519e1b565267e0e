"""From fingerprint, labels, device and the user's overrides to a plan. Pure: reads no file, asks no device."""

import math
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from segkit.errors import DataError, UsageError
from segkit.networks.memory_format import choose_channels_last
from segkit.planning.budget import divided, validation_distance
from segkit.planning.device import DeviceFacts
from segkit.planning.fingerprint import Fingerprint, Intensity
from segkit.planning.ladder import LADDER, Mirror, choose_rung
from segkit.planning.plan import Normalisation, Plan, Precision
from segkit.planning.rules import (
    Budget,
    PatchPlan,
    Topology,
    convolution_elements,
    plan_patch,
    resampled_shape,
    target_spacing,
    topology,
)
from segkit.types import Labels, Size, Spacing

Laterality: TypeAlias = Literal["auto", "sided", "none"]

_MASK_BELOW = 0.75
_SIDES = frozenset({"left", "right", "l", "r", "lh", "rh", "lt", "rt", "sinister", "dexter"})
_VALIDATION_SHARE = 0.2
_TRAINING_COST = 3.0
"""Cost of forward and backward in units of a forward pass."""
_LOWRES_SHARE = 0.25
_WORTH_BF16 = 1.1
"""Times as fast as float32 from which on bfloat16 is taken on a processor: less is within what a measurement errs."""
_DERIVED = frozenset({"name", "dimensions", "channels", "labels", "unit", "reasons"})
_OVERRIDABLE = tuple(f.name for f in fields(Plan) if f.name not in _DERIVED)


def make_plan(
    fingerprint: Fingerprint,
    labels: Labels,
    *,
    device: DeviceFacts,
    name: str = "auto",
    overrides: Mapping[str, Any] | None = None,
    laterality: Laterality = "auto",
    num_tuning: int = 0,
    max_steps: int | None = None,
) -> Plan:
    """The plan of a training.

    Args:
        fingerprint: Of the training and tuning cases.
        labels: Meaning of the label values.
        device: Where it will run; decides `auto`, the precision and nothing else.
        name: A rung of the ladder, or "auto".
        overrides: Plan fields given by the user; None values mean "by rule".
        laterality: "sided": left and right are different classes, never mirror along left-right; "none": the
            structures have no side; "auto": sided where class names look it.
        num_tuning: Cases that a validation predicts.
        max_steps: Length of the training in optimiser steps, instead of epochs and their length.

    Raises:
        UsageError: For an unknown plan or field, or a value that does not fit the data.
        DataError: For a data set without any foreground.
    """
    if not any(fingerprint.class_voxels[1:]):
        raise DataError(
            "no foreground in any case",
            why=f"{fingerprint.num_cases} cases hold only the label {labels.ids[0]} ({labels.names[0]})",
            mend="check that data.root holds the right labels, or name the classes in dataset.json",
        )
    given = _checked(overrides or {}, fingerprint.dimensions)
    rung_name, why_rung = choose_rung(name, device)
    rung = LADDER[rung_name]
    reasons = {"name": f"{why_rung}: {rung.purpose}"}

    spacing: Spacing = given.get("spacing") or target_spacing(fingerprint.spacings, fingerprint.shapes)
    reasons["spacing"] = f"median of {fingerprint.num_cases} cases, coarse axes by nnU-Net's rule"
    shapes = [
        resampled_shape(shape, old, spacing)
        for shape, old in zip(fingerprint.shapes, fingerprint.spacings, strict=True)
    ]
    median_shape = tuple(float(n) for n in np.median(shapes, axis=0))

    found = _network(fingerprint, spacing, median_shape, rung.budget(fingerprint.dimensions), given, labels.num_classes)
    shape_text = "x".join(f"{n:.0f}" for n in median_shape)
    reasons["patch_size"] = f"largest the rung {rung_name} allows with the aspect of the median image {shape_text}"
    reasons["batch_size"] = f"{found.estimate / 1e6:.0f}e6 feature-map elements a sample against the rung's budget"
    reasons["features"] = f"{found.topology.num_stages} stages: axes are halved down to 4 voxels"
    reasons["strides"] = reasons["kernel_sizes"] = "axes within twice the finest voxel are halved together"
    reasons["blocks_per_stage"] = f"rung {rung_name}, for networks with residual blocks"

    share = math.prod(found.patch_size) / math.prod(median_shape)
    batch_dice = fingerprint.dimensions == 2 or share < _LOWRES_SHARE
    reasons["batch_dice"] = f"a patch covers {min(share, 1):.0%} of the median image"
    precision, reasons["precision"] = _precision(device)
    normalisation, reasons["normalisation"] = _normalisation(fingerprint, given.get("normalisation"))
    flips, reasons["flip_axes"] = _flip_axes(labels, fingerprint, laterality, rung.mirror)
    for key in ("steps_per_epoch", "max_epochs", "learning_rate", "ema_decay"):
        reasons[key] = f"rung {rung_name}"
    reasons["compile"] = f"not asked for, and on {device.kind} not timed to pay"

    plan = Plan(
        name=rung_name,
        dimensions=fingerprint.dimensions,
        channels=fingerprint.channels,
        labels=labels,
        spacing=spacing,
        unit=fingerprint.unit,
        normalisation=normalisation,
        patch_size=found.patch_size,
        batch_size=found.batch_size,
        features=found.features,
        strides=found.topology.strides,
        kernel_sizes=found.topology.kernel_sizes,
        blocks_per_stage=_stretched(rung.blocks, found.topology.num_stages),
        batch_dice=batch_dice,
        steps_per_epoch=rung.steps_per_epoch,
        max_epochs=rung.max_epochs,
        learning_rate=rung.learning_rate,
        ema_decay=rung.ema_decay,
        validation_every_n_epochs=1,
        precision=precision,
        tile_batch=1,
        flip_axes=flips,
    )
    plan = replace(plan, **{key: value for key, value in given.items() if key != "normalisation"})
    if "channels_last" not in given:
        last, reasons["channels_last"] = choose_channels_last(device.kind, plan.precision, plan.dimensions)
        plan = replace(plan, channels_last=last)
    if "tile_batch" not in given:
        tiles, reasons["tile_batch"] = _tile_batch(device.kind, plan.precision, plan.batch_size, plan.dimensions)
        plan = replace(plan, tile_batch=tiles)
    if max_steps is not None:
        plan = of_length(plan, max_steps, shortest=rung.steps_per_epoch, keep=given)
        reasons.update(dict.fromkeys(("max_epochs", "steps_per_epoch"), f"trainer.max_steps={max_steps}"))
        reasons["validation_every_n_epochs"] = "about ten times a run whose length is given in steps"
    elif "validation_every_n_epochs" not in given:
        every = validation_interval(plan, median_shape, num_tuning=num_tuning)
        reasons["validation_every_n_epochs"] = (
            f"{num_tuning} whole images cost at most {_VALIDATION_SHARE:.0%} of the time, at least 4 times a run"
        )
        plan = replace(plan, validation_every_n_epochs=every)
    reasons.update(dict.fromkeys(given, "given by the user"))
    return replace(plan, reasons=reasons)


def _tile_batch(device: str, precision: str, batch_size: int, dimensions: int) -> tuple[int, str]:
    """Tiles a pass, and why.

    A processor is busy with one tile in 3D, and more of them leave its cache; in float32 one and two are about equally
    fast. Seconds an image with 1, 2, 4 and 7 tiles a pass in bfloat16, a tile with 1, 2 and 4 in float32, two cores
    each, of two processors:

        bfloat16   64x64x64, 16.5 M parameters    3.47    3.78    4.73    4.69
        bfloat16   40x56x40,  5.6 M               1.77    1.89    1.91    2.31
        bfloat16   256x256,   1.3 M               0.39    0.35    0.34    0.32
        float32    40x56x40,  5.6 M               0.213   0.200   0.251
        float32    40x56x40,  1.4 M               0.075   0.067   0.069
        float32    32x32x32,  0.3 M               0.020   0.023   0.026
    """
    if device != "cpu":
        return min(batch_size, 16), "what fits in training fits in inference"
    if dimensions == 2:
        return min(batch_size, 4), "some tiles keep a processor busy"
    if precision == "32-true":
        return min(batch_size, 2), "two tiles are as fast as one or a little faster, and more leave the cache"
    return 1, "one tile keeps a processor busy"


def of_length(plan: Plan, max_steps: int, *, shortest: int, keep: Container[str] = ()) -> Plan:
    """The plan for a run of so many steps.

    Args:
        plan: Everything else.
        max_steps: Optimiser steps.
        shortest: Steps of the rung's epoch; see `budget.divided`.
        keep: Fields that stay as they are.
    """
    epochs, length = divided(max_steps, shortest=shortest)
    plan = replace(plan, max_epochs=epochs, steps_per_epoch=length)
    if "validation_every_n_epochs" in keep:
        return plan
    return replace(plan, validation_every_n_epochs=validation_distance(epochs))


def validation_interval(plan: Plan, median_shape: Sequence[float | int], *, num_tuning: int) -> int:
    """Epochs between validations, from operation counts: validation takes at most a fifth of the time.

    A forward pass of one voxel is the unit. An epoch costs 3 x steps x batch x patch; a validation costs
    tiles x patch for every case, with tiles half a patch apart. At least 4 validations a run.
    """
    tiles = math.prod(
        1 if size <= patch else math.ceil((size - patch) / (patch / 2)) + 1
        for size, patch in zip(median_shape, plan.patch_size, strict=True)
    )
    validation = float(num_tuning * tiles)
    epoch = _TRAINING_COST * plan.steps_per_epoch * plan.batch_size
    every = math.ceil(validation * (1 - _VALIDATION_SHARE) / _VALIDATION_SHARE / epoch)
    return max(1, min(every, plan.max_epochs // 4))


def sided(names: Sequence[str]) -> tuple[str, ...]:
    """The class names that look as if they named a side of the body: a part is left, right, l, r, lh, rh."""

    def parts(name: str) -> set[str]:
        spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
        return {part.lower() for part in re.split(r"[\W_\d]+", spaced) if part}

    return tuple(name for name in names if parts(name) & _SIDES)


def _checked(overrides: Mapping[str, Any], dimensions: int) -> dict[str, Any]:
    """The overrides that are not None, as the plan holds them."""
    given = {key: value for key, value in overrides.items() if value is not None}
    unknown = [key for key in given if key not in _OVERRIDABLE]
    if unknown:
        raise UsageError(
            f"the plan has no field {', '.join(unknown)}",
            where=", ".join(f"plan.{key}" for key in unknown),
            why=f"fields that can be given: {', '.join(_OVERRIDABLE)}",
        )
    for key in ("spacing", "patch_size"):
        if key in given and (len(given[key]) != dimensions or min(given[key]) <= 0):
            raise UsageError(
                f"plan.{key} needs {dimensions} positive numbers, got {list(given[key])}",
                where=f"plan.{key}",
                why=f"the images have {dimensions} spatial axes",
            )
    for key in ("batch_size", "steps_per_epoch", "max_epochs", "validation_every_n_epochs", "tile_batch"):
        if key in given and int(given[key]) < 1:
            raise UsageError(f"plan.{key} must be at least 1, got {given[key]}", where=f"plan.{key}")
    frozen = {key: _frozen(value) for key, value in given.items()}
    if "spacing" in frozen:
        frozen["spacing"] = tuple(float(s) for s in frozen["spacing"])
    return frozen


def _frozen(value: Any) -> Any:  # noqa: ANN401  values of a configuration
    return tuple(_frozen(inner) for inner in value) if isinstance(value, (list, tuple)) else value


def _network(
    fingerprint: Fingerprint,
    spacing: Spacing,
    median_shape: Sequence[float | int],
    budget: Budget,
    given: Mapping[str, Any],
    num_classes: int,
) -> PatchPlan:
    """Patch, batch and topology by the rules, around what the user gave."""
    features: tuple[int, ...] | None = given.get("features")
    strides: tuple[Size, ...] | None = given.get("strides")
    if features:
        budget = replace(budget, base_features=features[0], max_features=max(features), max_stages=len(features))
    found = plan_patch(spacing, median_shape, num_classes=num_classes, num_cases=fingerprint.num_cases, budget=budget)
    patch: Size = given.get("patch_size") or found.patch_size
    shape = topology(patch, spacing, max_stages=budget.max_stages)
    if strides:
        kernels = given.get("kernel_sizes") or ((3,) * len(patch),) * len(strides)
        divisor = tuple(math.prod(column) for column in zip(*strides, strict=True))
        shape = Topology(strides, kernels, divisor)
    shape = replace(shape, kernel_sizes=given.get("kernel_sizes") or shape.kernel_sizes)
    features = features or budget.features(shape.num_stages)
    if not len(features) == len(shape.strides) == len(shape.kernel_sizes):
        raise UsageError(
            "plan.features, plan.strides and plan.kernel_sizes name different numbers of stages",
            where="plan.features, plan.strides, plan.kernel_sizes",
            why=f"{len(features)} features, {len(shape.strides)} strides, {len(shape.kernel_sizes)} kernel sizes; "
            f"a patch of {patch} is halved {shape.num_stages - 1} times by rule",
            mend="give as many of each, or a larger plan.patch_size",
        )
    if patch == found.patch_size and shape.strides == found.topology.strides:
        return replace(found, topology=shape, features=features)
    estimate = convolution_elements(patch, shape.strides, features, num_classes=num_classes, encoder=budget.encoder)
    batch = round(budget.reference / estimate * budget.reference_batch)
    return PatchPlan(patch, max(budget.min_batch, min(batch, budget.max_batch)), shape, features, estimate)


def _normalisation(fingerprint: Fingerprint, given: Sequence[str] | None) -> tuple[tuple[Normalisation, ...], str]:
    """By channel name: `ct` by the data set's foreground, `nonorm` not at all, anything else by case."""
    zscore = "masked_zscore" if fingerprint.relative_size < _MASK_BELOW else "zscore"
    by_name = {"ct": "ct", "nonorm": "none", "none": "none"}
    schemes = given or [by_name.get(channel.lower(), zscore) for channel in fingerprint.channels]
    if len(schemes) != len(fingerprint.channels) or set(schemes) - {"zscore", "masked_zscore", "ct", "none"}:
        raise UsageError(
            f"plan.normalisation needs one of zscore, masked_zscore, ct, none for each of {fingerprint.channels}",
            where="plan.normalisation",
            why=f"got {list(schemes)}",
        )
    made = tuple(_scheme(scheme, facts) for scheme, facts in zip(schemes, fingerprint.intensities, strict=True))
    region = "inside the nonzero region" if zscore == "masked_zscore" else "over the whole crop"
    return made, (
        f"CT by the foreground of the data set, else z-score by case {region}: "
        f"the crop to nonzero keeps {fingerprint.relative_size:.0%} of an image"
    )


def _scheme(name: str, facts: Intensity) -> Normalisation:
    if name == "ct":
        return Normalisation(
            "ct", mean=facts.mean, std=facts.std, low=facts.percentile_00_5, high=facts.percentile_99_5
        )
    return Normalisation("none") if name == "none" else Normalisation("zscore", masked=name == "masked_zscore")


def _precision(device: DeviceFacts) -> tuple[Precision, str]:
    if not device.native_bf16:
        return "32-true", f"{device.name} does not compute bfloat16 natively"
    speedup = device.bf16_speedup
    if speedup is None:
        return "bf16-mixed", f"{device.name} computes bfloat16 natively"
    told = f"a convolution in bfloat16 is {speedup:.2g} times as fast as in float32, measured on {device.name}"
    return ("bf16-mixed" if speedup >= _WORTH_BF16 else "32-true"), told


def _flip_axes(
    labels: Labels, fingerprint: Fingerprint, laterality: Laterality, mirror: Mirror
) -> tuple[tuple[int, ...], str]:
    """Axes along which flips keep the labels right, and the rung's choice among them.

    Axis 0 runs from left to right in RAS+ order. A picture has no patient axes: with sided labels it is not
    mirrored at all, without them along all axes.
    """
    axes, patient = tuple(range(fingerprint.dimensions)), fingerprint.dimensions == 3 and fingerprint.unit == "mm"
    names = sided(labels.foreground)
    if laterality == "none" or (laterality == "auto" and not names):
        because = "no class name looks sided" if laterality == "auto" else "data.laterality=none"
        if patient and mirror == "patient":
            return (0,), f"{because}; left-right only: along the others a mirror image is no possible patient"
        return axes, because
    because = f"{', '.join(names)} look sided" if laterality == "auto" else "data.laterality=sided"
    if patient and mirror == "patient":
        return (), f"{because}: not mirrored along left-right (axis 0), nor along the others, where nobody is"
    if patient:
        return axes[1:], f"{because}: not mirrored along left-right (axis 0)"
    return (), f"{because} and the picture's left-right axis is not known: not mirrored"


def _stretched(blocks: tuple[int, ...], num_stages: int) -> tuple[int, ...]:
    """Blocks for any number of stages: the last number is repeated."""
    return (blocks + (blocks[-1],) * num_stages)[:num_stages]

"""From files to the voxels a network sees: closest RAS+ order, crop to nonzero, normalise, resample.

One way for every role: training, tuning, test and new images all come through `preprocess`. The order is
nnU-Net's: statistics are taken on the voxels as measured, before interpolation smooths them.

Reference:
    Isensee et al. 2021, nnU-Net, Nature Methods 18.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from scipy import ndimage

from segkit.data.annotated import annotated_indices
from segkit.data.cases import geometry_mismatch, read_image, read_label
from segkit.data.geometry import canonical
from segkit.data.labels import to_class_indices
from segkit.errors import DataError
from segkit.ops.bounding_box import bounding_box
from segkit.ops.resample import resample_image, resample_label
from segkit.planning.plan import Normalisation, Plan
from segkit.planning.rules import resampled_shape, separate_axis
from segkit.types import Box, Case, Geometry, Labels, PreparedCase

_TINY = 1e-8


@dataclass(frozen=True)
class RawCase:
    """A case as read, in RAS+ order, cut to its nonzero region; intensities as in the files.

    Args:
        image: (C, *S) float32.
        label: (*S) class indices of the crop, or None.
        native_label: Class indices of the whole image, or None.
        native_instances: Instance ids of the whole image, where the labels are instances.
        geometry: The way back; its crop is the one made here.
    """

    image: Float[np.ndarray, "C *S"]
    label: Int[np.ndarray, "*S"] | None
    native_label: Int[np.ndarray, "..."] | None
    native_instances: Int[np.ndarray, "..."] | None
    geometry: Geometry


def preprocess(case: Case, plan: Plan, *, content_hash: str | None = None) -> PreparedCase:
    """The case on the plan's grid.

    Args:
        case: Files; without a label the label fields stay None.
        plan: Spacing, normalisation, labels.
        content_hash: Of the image files, where it is known already.

    Raises:
        DataError: For files that cannot be read, that disagree, or that do not fit the plan.
    """
    raw = read_case(case, plan.labels)
    if raw.image.shape[0] != plan.in_channels or raw.image.ndim != plan.dimensions + 1:
        raise DataError(
            "the image does not fit the model",
            where=f"case {case.case_id}, {case.images[0]}",
            why=f"{raw.image.shape[0]} channels and {raw.image.ndim - 1} spatial axes; the plan wants the channels "
            f"{', '.join(plan.channels)} and {plan.dimensions} axes",
            mend="give the same channels, in the same order, as in training",
        )
    image, valid = normalise(raw.image, plan.normalisation)
    size = resampled_shape(image.shape[1:], raw.geometry.native_spacing, plan.spacing)
    label = raw.label
    if size != image.shape[1:]:
        apart = separate_axis(raw.geometry.native_spacing, plan.spacing)
        image = resample_image(image, size, separate_axis=apart)
        label = None if label is None else resample_label(label, size, separate_axis=apart)
        if valid is not None:
            valid = resample_label(valid.astype(np.int8), size, separate_axis=apart) > 0
            image = _outside_zero(image, valid, plan.normalisation)
    return PreparedCase(
        case_id=case.case_id,
        group=case.group,
        image=image,
        valid=valid,
        label=label,
        native_label=raw.native_label,
        native_instances=raw.native_instances,
        geometry=raw.geometry,
        content_hash=content_hash or content_hash_of(case.images),
        annotated=annotated_indices(case, plan.labels),
    )


def read_case(case: Case, labels: Labels) -> RawCase:
    """Read a case's files, put them in RAS+ order, and cut them to the region where any channel is nonzero.

    Raises:
        DataError: For unreadable files, channels or labels of another shape, and label values without a name.
    """
    volume = read_image(case)
    array, geometry = canonical(volume)
    image = np.ascontiguousarray(array, dtype=np.float32)
    box = nonzero_box(image)
    native_label = native_instances = label = None
    if case.label is not None:
        values, label_volume = read_label(case)
        if mismatch := geometry_mismatch(volume, label_volume):
            raise DataError(
                "label and image do not lie on one grid",
                where=f"case {case.case_id}, label {case.label}",
                why=mismatch,
                mend="resample the label onto the image, or copy the header if only that is wrong",
            )
        # By the image's own axes, so that rounding in two headers cannot part image and label.
        ids = canonical(replace(volume, array=values[None]))[0][0]
        native_label = to_class_indices(ids, labels, where=f"case {case.case_id}, label {case.label}")
        if labels.kind == "instances":
            native_instances = np.where(native_label > 0, ids, 0).astype(np.int32)
        label = cut(native_label, box).astype(label_dtype(labels.num_classes))
    return RawCase(cut(image, box), label, native_label, native_instances, replace(geometry, crop=box))


def nonzero_box(image: Num[np.ndarray, "C *S"]) -> Box:
    """The smallest box that holds every voxel where any channel is not zero; the whole image if there is none."""
    box = bounding_box((image != 0).any(axis=0))
    if box is None:
        return tuple((0, n) for n in image.shape[1:])
    return tuple((axis.start, axis.stop) for axis in box)


def cut(array: np.ndarray, box: Box) -> np.ndarray:
    """The part of the last axes that lies in the box, as a contiguous array."""
    index: tuple[Any, ...] = (..., *(slice(start, stop) for start, stop in box))
    return np.ascontiguousarray(array[index])


def normalise(
    image: Float[np.ndarray, "C *S"], schemes: Sequence[Normalisation]
) -> tuple[Float[np.ndarray, "C *S"], Bool[np.ndarray, "*S"] | None]:
    """Normalise each channel by its scheme.

    Masked statistics are taken where any channel is nonzero, holes filled; outside it the result is 0.

    Args:
        image: (C, *S) of the crop.
        schemes: One a channel.

    Returns:
        The image, and the region of the statistics, or None where no scheme is masked.
    """
    valid: Bool[np.ndarray, "*S"] | None = None
    if any(scheme.masked for scheme in schemes):
        valid = np.asarray(ndimage.binary_fill_holes((image != 0).any(axis=0)), dtype=bool)
    result = np.empty_like(image)
    for channel, scheme in enumerate(schemes):
        result[channel] = _normalise_channel(image[channel], scheme, valid if scheme.masked else None)
    return result, valid


def _normalise_channel(
    channel: Float[np.ndarray, "*S"], scheme: Normalisation, valid: Bool[np.ndarray, "*S"] | None
) -> Float[np.ndarray, "*S"]:
    if scheme.scheme == "none":
        return channel
    if scheme.scheme == "ct":
        scaled: Float[np.ndarray, "*S"] = np.clip(channel, np.float32(scheme.low or 0), np.float32(scheme.high or 0))
        scaled = (scaled - np.float32(scheme.mean or 0)) / np.float32(max(scheme.std or 1, _TINY))
        return scaled
    values = channel if valid is None else channel[valid]
    if values.size == 0:
        return np.zeros_like(channel)
    # float64 sums: an intensity of 1e6 leaves float32 no digits for the variance.
    mean, std = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    # The mean in two parts: rounded to float32 alone it would be off by a sixteenth at 1e6.
    coarse = np.float32(mean)
    result = ((channel - coarse) - np.float32(mean - float(coarse))) / np.float32(max(std, _TINY))
    return result if valid is None else np.where(valid, result, np.float32(0))


def _outside_zero(
    image: Float[np.ndarray, "C *S"], valid: Bool[np.ndarray, "*S"], schemes: Sequence[Normalisation]
) -> Float[np.ndarray, "C *S"]:
    """Splines smear the edge of the mask outwards; put the zeros back."""
    masked = np.array([scheme.masked for scheme in schemes]).reshape(-1, *(1,) * valid.ndim)
    return np.where(masked & ~valid, np.float32(0), image)


def label_dtype(num_classes: int) -> np.dtype[np.signedinteger]:
    """Smallest signed type that holds every class index and -1."""
    return np.dtype(np.int8 if num_classes <= 128 else np.int16)


def content_hash_of(paths: Sequence[Path]) -> str:
    """sha256 over the contents of the files, in order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(file_hash(path).encode())
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """sha256 of one file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

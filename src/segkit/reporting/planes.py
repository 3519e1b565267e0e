"""Which slices of an image are shown, and which way up: arithmetic only, nothing is drawn here."""

import math
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from segkit.types import Spacing

Unit = Literal["mm", "pixel"]

_MOST_VALUES = 4_000_000
_NAMES: Final = ("sagittal", "coronal", "axial")
_DIRECTIONS: Final = (("L", "R"), ("P", "A"), ("I", "S"))
"""Low and high end of each axis of an array in RAS+ order."""


@dataclass(frozen=True)
class Sides:
    """The patient's directions at the four sides of a plane: R(ight) L(eft) A(nterior) P(osterior) S(uperior) I."""

    left: str
    right: str
    top: str
    bottom: str


@dataclass(frozen=True)
class Plane:
    """One slice as it lies on paper: row 0 at the top, column 0 at the left.

    Args:
        image: Intensities, channels last: one, or three for colour.
        reference: Class indices, or None.
        prediction: Class indices, or None.
        pixel: Height and width of a pixel, mm (or pixels).
        caption: Which slice it is.
        sides: The patient's directions; None where they are not known.
    """

    image: Float[np.ndarray, "h w c"]
    reference: Int[np.ndarray, "h w"] | None
    prediction: Int[np.ndarray, "h w"] | None
    pixel: tuple[float, float]
    caption: str = ""
    sides: Sides | None = field(default=None)

    @property
    def extent(self) -> tuple[float, float]:
        """Width and height, mm (or pixels)."""
        return self.image.shape[1] * self.pixel[1], self.image.shape[0] * self.pixel[0]

    @property
    def marked(self) -> Bool[np.ndarray, "h w"]:
        """Where reference or prediction hold a class."""
        masks = [mask > 0 for mask in (self.reference, self.prediction) if mask is not None]
        return np.logical_or.reduce(masks) if masks else np.zeros(self.image.shape[:2], dtype=bool)


def planes_of(
    image: Num[np.ndarray, "C ..."],
    reference: Int[np.ndarray, "..."] | None,
    prediction: Int[np.ndarray, "..."] | None,
    *,
    spacing: Spacing,
    unit: Unit = "mm",
    channel: int = 0,
) -> tuple[Plane, ...]:
    """Axial, coronal and sagittal plane of a volume, or the picture itself.

    Planes in mm are laid as a radiologist expects them: the patient's right on the left, anterior (axial) or
    superior up, anterior on the left of the sagittal one. Every array axis in RAS+ order runs against paper then,
    so all are turned. A stack in pixels has no patient and keeps its order.

    Args:
        image: (C, *S), volumes in RAS+ order.
        reference: (*S) class indices, -1 ignored.
        prediction: (*S) class indices.
        spacing: By axis.
        unit: Whether the axes are the patient's.
        channel: Channel shown where the image is not a picture of three channels.
    """
    shown = image if image.ndim == 3 and image.shape[0] == 3 else image[channel : channel + 1]
    shown = np.moveaxis(shown, 0, -1).astype(np.float32)
    if image.ndim == 3:
        return (Plane(shown, reference, prediction, (spacing[0], spacing[1])),)
    wanted = reference if reference is not None and (reference > 0).any() else prediction
    return tuple(_plane(shown, reference, prediction, wanted, axis, spacing, unit) for axis in (2, 1, 0))


def best_slice(label: Int[np.ndarray, "..."] | None, axis: int, *, size: int) -> int:
    """The slice across `axis` that shows most: the largest sum over classes of the share of the class it holds.

    By shares, so that a small structure counts as much as a large one beside it; the first of equals. The middle
    where there is nothing to show.
    """
    return size // 2 if label is None else fullest_slice(counts_by_slice(label, axis))


def counts_by_slice(label: Int[np.ndarray, "..."], axis: int) -> Int[np.ndarray, "slices K"]:
    """Voxels of each class in each slice across `axis`; what nobody annotated counts as background.

    Slice by slice, so that no copy of a large volume is made, whatever the number of classes.
    """
    classes = max(int(label.max(initial=0)), 0) + 1
    slices = np.moveaxis(label, axis, 0)
    return np.array([np.bincount(np.maximum(one, 0).ravel(), minlength=classes) for one in slices], dtype=np.int64)


def fullest_slice(counts: Int[np.ndarray, "slices K"]) -> int:
    """The rule of `best_slice`, from the voxels of each class in each slice."""
    foreground = counts[:, 1:]
    total = foreground.sum(axis=0)
    if not total.any():
        return len(counts) // 2
    return int(np.argmax((foreground[:, total > 0] / total[total > 0]).sum(axis=1)))


def window(image: Num[np.ndarray, "C ..."]) -> tuple[Float[np.ndarray, "C"], Float[np.ndarray, "C"]]:
    """Intensities shown black and white, by channel: the 0.5th and 99.5th percentile.

    Of the finite voxels above the lowest, so that the empty space round a head does not count. A constant channel
    gets an interval of one around it, and is shown grey. Pictures of 8 bits with three channels keep their colours.
    Of a large image every so many-th voxel is looked at: percentiles of millions are those of all.
    """
    if image.dtype == np.uint8 and image.shape[0] == 3:
        return np.zeros(3), np.full(3, 255.0)
    axes = image.ndim - 1
    step = max(1, math.ceil((math.prod(image.shape[1:]) / _MOST_VALUES) ** (1 / axes)))
    sample = image[(slice(None), *(slice(None, None, step) for _ in range(axes)))]
    limits = []
    for values in sample.reshape(image.shape[0], -1).astype(np.float64):
        finite = values[np.isfinite(values)]
        lowest = float(finite.min()) if finite.size else 0.0
        inside = finite[finite > lowest]
        low, high = np.percentile(inside, (0.5, 99.5)) if inside.size else (lowest, lowest)
        low = low if high > low else lowest  # an image of two values
        margin = 0.0 if high > low else max(0.5, abs(low) / 2)
        limits.append((low - margin, high + margin))
    return np.array([low for low, _ in limits]), np.array([high for _, high in limits])


def round_length(longest: float) -> float:
    """The largest of 1, 2, 5 x 10^k that is not longer than `longest`: what a scale bar shows."""
    power = 10.0 ** np.floor(np.log10(longest))
    return float(max(step * power for step in (1, 2, 5) if step * power <= longest * (1 + 1e-9)))


def _plane(
    image: Float[np.ndarray, "x y z c"],
    reference: Int[np.ndarray, "x y z"] | None,
    prediction: Int[np.ndarray, "x y z"] | None,
    wanted: Int[np.ndarray, "x y z"] | None,
    axis: int,
    spacing: Spacing,
    unit: Unit,
) -> Plane:
    size = image.shape[axis]
    index = best_slice(wanted, axis, size=size)
    first, second = (i for i in range(3) if i != axis)
    if unit == "pixel":
        cut = [None if a is None else a.take(index, axis) for a in (image, reference, prediction)]
        pixel, sides, name = (spacing[first], spacing[second]), None, f"across axis {axis}"
    else:
        cut = [None if a is None else _turned(a.take(index, axis)) for a in (image, reference, prediction)]
        pixel, name = (spacing[second], spacing[first]), _NAMES[axis]
        (right, left), (bottom, top) = _DIRECTIONS[first], _DIRECTIONS[second]
        sides = Sides(left, right, top, bottom)
    shown, truth, guess = cut
    assert shown is not None
    return Plane(shown, truth, guess, pixel, f"{name}, slice {index + 1} of {size}", sides)


def _turned(plane: Num[np.ndarray, "..."]) -> Num[np.ndarray, "..."]:
    """First axis to columns, second to rows, both backwards."""
    return plane.swapaxes(0, 1)[::-1, ::-1]

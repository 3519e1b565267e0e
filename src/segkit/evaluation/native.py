"""From logits on the plan's grid to classes of the image's own voxels, plane by plane.

A plane is what one voxel along the first axis cuts out. Linear resampling of a native plane needs the two planes of
the grid that lie about it: each of these is resampled within itself once, when it comes, and two are held. What of the
logits was there before may be gone by then, so that a whole image never needs to be in memory; where it is, the same
operations are made on the same numbers, and the labels are the same.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from segkit.ops.resample import linear_corners, nearest_index, resample_logits
from segkit.planning.rules import separate_axis
from segkit.types import Geometry, Size, Spacing

Average: TypeAlias = Literal["logits", "probabilities"]
"""What of several networks is averaged, and what is resampled."""
_PORTION = 1 << 22
"""Numbers that are compared at a time: what the processor's cache holds."""


@dataclass(frozen=True)
class Stream:
    """The logits of one network for an image, a few planes at a time.

    Args:
        blocks: (K, n, *rest) each, in order along the first axis, all planes of the grid in all. A block holds until
            the next one is asked for.
        num_classes: K.
        grid: Voxels of the plan's grid.
    """

    blocks: Iterator[Tensor]
    num_classes: int
    grid: Size


def native_prediction(
    members: Sequence[Float[Tensor, "K ..."]], geometry: Geometry, *, average: Average = "logits"
) -> Int[np.ndarray, "..."]:
    """Class of each voxel of the whole image, in RAS+ order, from the logits of whole images; see `native_labels`.

    Args:
        members: Logits (K, *S) of one network, or of several, each on the grid of its own plan.
        geometry: The way back; `crop` is what the logits cover.
        average: What is resampled and averaged.

    Raises:
        ValueError: No member, or members with different numbers of classes.
    """
    return native_labels(_whole(members), geometry, average=average)


def native_slabs(
    members: Sequence[Float[Tensor, "K ..."]], geometry: Geometry
) -> Iterator[tuple[slice, Float[Tensor, "K ..."]]]:
    """Mean logits of the crop, a few planes of its first axis at a time: what `native_prediction` takes the largest of.

    Args:
        members: Logits (K, *S) of one network, or of several, each on the grid of its own plan.
        geometry: The way back; `crop` is what the logits cover.

    Yields:
        Planes of the crop, and their logits (K, n, *rest), which hold until the next ones are asked for.
    """
    size = tuple(stop - start for start, stop in geometry.crop)
    begin = 0
    for values in _averaged(_whole(members), size, geometry.native_spacing, "logits"):
        yield slice(begin, begin + values.shape[1]), values
        begin += values.shape[1]


def native_labels(
    members: Sequence[Stream],
    geometry: Geometry,
    *,
    average: Average = "logits",
    keep: Callable[[int, Tensor], None] | None = None,
) -> Int[np.ndarray, "..."]:
    """Class of each voxel of the whole image, in RAS+ order; background outside the crop.

    What is averaged - the logits of each member, or its probabilities softmax(logits) - is resampled linearly to the
    crop and averaged there (resampling is linear, so that members on one grid may as well be averaged before); then the
    largest wins, the lower class where two are equal. An axis along which the image was not interpolated on the way in
    is not on the way out either.

    Args:
        members: One network's logits, or several networks', each on the grid of its own plan.
        geometry: The way back; `crop` is what the logits cover.
        average: What is resampled and averaged.
        keep: Called with the first plane of a block within the crop and with the probabilities (K, n, *rest) of its
            voxels, which hold until it returns: the average, or the softmax of averaged logits.

    Raises:
        ValueError: No member, or members with different numbers of classes.
    """
    classes = [member.num_classes for member in members]
    if len(set(classes)) != 1:
        raise ValueError(f"logits of {classes} classes cannot be averaged")
    size = tuple(stop - start for start, stop in geometry.crop)
    whole = np.zeros(geometry.native_shape, dtype=np.int16)
    crop = torch.from_numpy(whole[tuple(slice(start, stop) for start, stop in geometry.crop)])
    begin = 0
    with torch.no_grad():
        for values in _averaged(members, size, geometry.native_spacing, average):
            if keep is not None:
                keep(begin, values if average == "probabilities" else values.softmax(0))
            stop = begin + values.shape[1]
            crop[begin:stop] = _largest(values)
            begin = stop
    return whole


def _whole(members: Sequence[Tensor]) -> list[Stream]:
    """Logits of whole images as streams of one block."""
    return [Stream(iter([one]), one.shape[0], tuple(one.shape[1:])) for one in members]


def _averaged(members: Sequence[Stream], size: Size, spacing: Spacing, average: Average) -> Iterator[Tensor]:
    """The mean of what is averaged on the native grid, (K, n, *rest) at a time."""
    only = members[0]
    if len(members) == 1 and tuple(only.grid) == size:
        planes = max(1, _PORTION // max(1, only.num_classes * int(np.prod(size[1:]))))
        for block in only.blocks:
            for first in range(0, block.shape[1], planes):
                part = block[:, first : first + planes]
                yield part.softmax(0) if average == "probabilities" else part
        return
    sources = [_NativePlanes(member, size, spacing, average) for member in members]
    for index in range(size[0]):
        total = sources[0].plane(index)
        for other in sources[1:]:
            total = total + other.plane(index)
        yield (total if len(sources) == 1 else total / len(sources)).unsqueeze(1)


class _NativePlanes:
    """What is averaged of one member, on the native grid, asked for plane by plane in order."""

    def __init__(self, stream: Stream, size: Size, spacing: Spacing, average: Average) -> None:
        apart = _axis_apart(stream.grid, size, spacing)
        self._rest, self._average = size[1:], average
        self._apart_within = None if not apart else apart - 1
        self._source = (block[:, k] for block in stream.blocks for k in range(block.shape[1]))
        self._come, self._held = -1, dict[int, Tensor]()
        old, new = stream.grid[0], size[0]
        if apart == 0 or old == new:
            self._below = nearest_index(old, new)
            self._above, self._fraction = self._below, np.zeros(new, dtype=np.float32)
        else:
            (self._below, _), (self._above, self._fraction) = linear_corners(old, new)

    def plane(self, index: int) -> Float[Tensor, "K *R"]:
        """Native plane `index`: (1 - f) below + f above."""
        below, above, fraction = int(self._below[index]), int(self._above[index]), float(self._fraction[index])
        self._held = {k: held for k, held in self._held.items() if k >= below}
        if fraction == 0:
            return self._get(below)
        lower, upper = self._get(below), self._get(above)
        return torch.lerp(lower, upper, fraction)

    def _get(self, index: int) -> Tensor:
        """Plane `index` of the plan's grid, resampled within itself."""
        while self._come < index:
            plane = next(self._source)
            self._come += 1
            if self._come < index:
                continue
            values = plane.softmax(0) if self._average == "probabilities" else plane
            found = resample_logits(values, self._rest, separate_axis=self._apart_within)
            self._held[index] = found.clone() if found is plane else found
        return self._held[index]


def _largest(values: Float[Tensor, "K ..."]) -> Int[Tensor, "..."]:
    """The class with the largest value, the first of equal ones."""
    best = values[0].clone()
    winner = torch.zeros_like(best, dtype=torch.int16)
    for index in range(1, values.shape[0]):
        winner.masked_fill_(values[index] > best, index)
        torch.maximum(best, values[index], out=best)
    return winner


def _axis_apart(grid: Size, native: Size, spacing: Spacing) -> int | None:
    """The axis treated apart; the spacing of the grid follows from what both cover."""
    coarse = tuple(s * n / g for s, n, g in zip(spacing, native, grid, strict=True))
    return separate_axis(spacing, coarse)

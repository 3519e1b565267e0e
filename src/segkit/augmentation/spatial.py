"""Mirror, rotation and scaling: what moves voxels, with every field of the batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import cos, radians, sin
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from segkit.augmentation.parameters import check_probability, check_range, thin_axis, uniform
from segkit.augmentation.warp import (
    centre_crop,
    fold,
    lines_inside,
    make_sampling,
    may_leave,
    sample_linear,
    sample_lines,
    sample_nearest,
    scaled_lines,
    unfold,
)
from segkit.errors import DataError
from segkit.types import VOXEL_FIELDS, Batch, Size

_ELONGATED = 1.5
_CACHED = 1 << 16
"""Voxels of a patch that are resampled at a time on a CPU: with their intermediate results they fit its cache."""


@dataclass(frozen=True)
class SpatialDraw:
    """What moves one sample.

    Args:
        flips: Whether each spatial axis is mirrored.
        angles: Degrees about each axis (3D) or in the plane (one number); None where the sample is not rotated.
        scale: Source voxels a patch voxel; above 1 the object becomes smaller. None where it is not scaled.
    """

    flips: tuple[bool, ...]
    angles: tuple[float, ...] | None = None
    scale: float | None = None

    @property
    def resampled(self) -> bool:
        """Whether voxels fall between voxels, so that values have to be interpolated."""
        return self.angles is not None or self.scale is not None


def rotation_limit(patch_size: Size) -> float:
    """Largest rotation in degrees, by nnU-Net's rule.

    2D: 180, but 15 for patches whose longer side is over 1.5 times the shorter, since turning those leaves the image.
    3D: 30 about each axis; 180 within the slices of an anisotropic patch.
    """
    if len(patch_size) == 2:
        return 15.0 if max(patch_size) / min(patch_size) > _ELONGATED else 180.0
    return 30.0 if thin_axis(patch_size) is None else 180.0


def source_size(patch_size: Size, *, limit: float, scale: float) -> Size:
    """The patch to cut so that a turned and scaled one is mostly filled.

    Each axis is enlarged to what the patch's diagonal in a plane reaches after a turn by `limit` (at most 90) degrees,
    p_i cos + p_j sin for the worst j, then by 1 / scale. An axis across thick slices keeps its size. What a larger
    turn or scale asks for beyond is filled as outside, as in nnU-Net.

    Args:
        patch_size: Voxels of the patch.
        limit: Largest rotation in degrees.
        scale: Shrink factor of the patch in its source, in (0, 1].
    """
    thin, angle = thin_axis(patch_size), radians(min(limit, 90.0))
    enlarged = []
    for axis, size in enumerate(patch_size):
        others = [p for k, p in enumerate(patch_size) if k not in (axis, thin)]
        reach = max(size, *(size * cos(angle) + other * sin(angle) for other in others))
        # The epsilon keeps a size that is whole up to rounding from losing a voxel.
        enlarged.append(size if axis == thin else int(reach / scale + 1e-6))
    return tuple(enlarged)


def rotation_matrix(angles: Sequence[float]) -> Float[np.ndarray, "d d"]:
    """Rotation by one angle in the plane (axis 0 towards axis 1), or by three about the axes 0, 1, 2 in turn.

    Args:
        angles: Degrees.

    Returns:
        (2, 2) or (3, 3) acting on coordinates in the order of the tensor's axes.
    """
    if len(angles) == 1:
        c, s = cos(radians(angles[0])), sin(radians(angles[0]))
        return np.array([[c, -s], [s, c]])
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn[np.ix_((first, second), (first, second))] = rotation_matrix((angle,))
        matrix = turn @ matrix
    return matrix


def source_matrix(draw: SpatialDraw, dimensions: int) -> Float[np.ndarray, "d d"]:
    """Offsets in the patch to offsets in the source: rotation times scale, within the axes that are turned."""
    matrix = np.eye(dimensions) if draw.angles is None else rotation_matrix(draw.angles)
    return matrix * (1.0 if draw.scale is None else draw.scale)


def place(batch: Batch, draws: Sequence[SpatialDraw], patch_size: Size, *, together: bool | None = None) -> Batch:
    """Move every field of the batch to the patch: crop, resample what was drawn, mirror.

    Samples that are neither rotated nor scaled are cropped from the middle, exactly, and mirrored; the others are
    resampled once for rotation, scale and mirroring, about the same middle. Image linear, all else nearest. Outside
    the source: image 0, label 0 (background), ids 0, weight 0, valid False.

    Args:
        batch: At the source size.
        draws: What moves each sample.
        patch_size: Voxels of the result.
        together: Resample all samples at once, for devices where a launch costs more than the voxels, instead of one
            after the other, which copies no source and lets the patch stay in the cache. None: unless on a CPU.

    Returns:
        A new batch; nothing of the old one is edited. `valid` stays None unless a resampled patch may leave its source.

    Raises:
        DataError: The source is smaller than the patch.
    """
    here = tuple(batch.image.shape[2:])
    if any(have < want for have, want in zip(here, patch_size, strict=True)):
        raise DataError(
            "a training patch is smaller than the plan's",
            where=f"case {batch.case_id[0]}",
            why=f"the loader cut {here}, the plan wants {tuple(patch_size)}",
            mend="cut Recipe.source_size(patch_size) and pad it where the image ends",
        )
    moved = {name: value for name in VOXEL_FIELDS if (value := getattr(batch.target, name)) is not None}
    moved["image"] = batch.image
    if batch.valid is not None:
        moved["valid"] = batch.valid
    together = batch.image.device.type != "cpu" if together is None else together
    resampled = [b for b, draw in enumerate(draws) if draw.resampled]
    patches: dict[int, dict[str, Tensor]] = {}
    for chosen in [resampled] if together and resampled else [[b] for b in resampled]:
        parts = {name: _take(field, chosen) for name, field in moved.items()}
        if not together and draws[chosen[0]].angles is None:
            warped = rescale(parts, draws[chosen[0]], patch_size)
        else:
            warped = resample(parts, [draws[b] for b in chosen], patch_size, together=together)
        patches |= {b: {name: field[k] for name, field in warped.items()} for k, b in enumerate(chosen)}
    result = {name: field.new_empty((*field.shape[:2], *patch_size)) for name, field in moved.items()}
    if batch.valid is None and any("valid" in patch for patch in patches.values()):
        result["valid"] = torch.ones((len(draws), 1, *patch_size), dtype=torch.bool, device=batch.image.device)
    for b, draw in enumerate(draws):
        flipped = [axis + 1 for axis, flip in enumerate(draw.flips) if flip]
        if b in patches:
            for name, patch in patches[b].items():
                result[name][b] = patch
        else:
            for name, field in moved.items():
                crop = centre_crop(field[b : b + 1], patch_size)[0]
                result[name][b] = crop.flip(flipped) if flipped else crop
    changes: dict[str, Any] = {name: result[name] for name in VOXEL_FIELDS if name in result}
    target = replace(batch.target, **changes)
    return replace(batch, image=result["image"], valid=result.get("valid"), target=target)


def resample(
    parts: Mapping[str, Tensor], draws: Sequence[SpatialDraw], patch_size: Size, *, together: bool = False
) -> dict[str, Tensor]:
    """Rotate, scale and mirror the fields of some samples in one resampling.

    Args:
        parts: Fields (N, C, *S) by name; `image` is interpolated linearly, the others take the nearest voxel.
        draws: One for each of the N.
        patch_size: Voxels of the result.
        together: Whole patches in one launch each, instead of a few planes at a time that stay in a CPU's cache.

    Returns:
        The fields (N, C, *patch_size); the image is 0 where `valid` is False. `valid` is added where a patch may leave
        its source.
    """
    image, thin = parts["image"], thin_axis(patch_size)
    plane = [axis for axis in range(len(patch_size)) if axis != thin]
    here, there = (tuple(size[axis] for axis in plane) for size in (image.shape[2:], patch_size))
    # A mirrored patch is the same patch with the offsets of its axes negated, to the bit.
    signs = np.array([[-1.0 if draw.flips[axis] else 1.0 for axis in plane] for draw in draws])
    matrices = np.stack([source_matrix(draw, len(plane)) for draw in draws]) * signs[:, None]
    fields = {}
    for name, field in parts.items():
        cut = field if thin is None else centre_crop(field, patch_size, (thin,))
        fields[name] = fold(cut, thin)
    leaves = any(may_leave(matrix, here, there) for matrix in matrices)
    result = {name: field.new_empty((*field.shape[:2], *there)) for name, field in fields.items()}
    if leaves and "valid" not in fields:
        result["valid"] = torch.empty((len(draws), 1, *there), dtype=torch.bool, device=image.device)
    step = there[0] if together else max(1, _CACHED // int(np.prod(there[1:])))
    for start in range(0, there[0], step):
        part = slice(start, start + step)
        sampling = make_sampling(matrices, here, there, planes=part, leaves=leaves, device=image.device)
        for name, field in fields.items():
            sample = partial(sample_linear, together=together) if name == "image" else sample_nearest
            result[name][:, :, part] = sample(field, sampling)
        if sampling.inside is not None and "valid" not in fields:
            result["valid"][:, :, part] = sampling.inside[:, None]
    if thin is not None:
        if "valid" in result and "valid" not in fields:
            result["valid"] = result["valid"].expand(-1, patch_size[thin], *there).contiguous()
        result = {
            name: unfold(field, thin, parts[name].shape[1] if name in parts else 1) for name, field in result.items()
        }
        for k, draw in enumerate(draws):
            for field in result.values() if draw.flips[thin] else ():
                field[k] = field[k].flip(thin + 1)
    if "valid" in result:
        result["image"].masked_fill_(~result["valid"], 0)
    return result


def rescale(parts: Mapping[str, Tensor], draw: SpatialDraw, patch_size: Size) -> dict[str, Tensor]:
    """What `resample` gives for a sample that is not rotated, axis by axis, at a third of the cost.

    Args:
        parts: Fields (1, C, *S) by name.
        draw: Without angles.
        patch_size: Voxels of the result.

    Returns:
        As `resample`, to rounding.
    """
    here, thin = tuple(parts["image"].shape[2:]), thin_axis(patch_size)
    scale = 1.0 if draw.scale is None else draw.scale
    factors = [(-1.0 if flip else 1.0) * (1.0 if axis == thin else scale) for axis, flip in enumerate(draw.flips)]
    lines = scaled_lines(factors, here, patch_size)
    inside = lines_inside(lines, here)
    result = {name: sample_lines(field, lines, linear=name == "image") for name, field in parts.items()}
    if inside is not None:
        inside = inside.to(parts["image"].device)
        for field in result.values():
            field.masked_fill_(~inside, 0)
        result.setdefault("valid", inside[None, None])
    if "valid" in result:
        result["image"].masked_fill_(~result["valid"], 0)
    return result


def _take(field: Tensor, chosen: list[int]) -> Tensor:
    """Some samples of a field, a view if it is one: an index tensor would make the host wait for the device."""
    if len(chosen) == 1:
        return field[chosen[0] : chosen[0] + 1]
    return torch.stack([field[b] for b in chosen])


@dataclass(frozen=True)
class Spatial:
    """Mirror, rotation and scaling at nnU-Net's probabilities and ranges.

    Args:
        mirror_probability: Share of samples mirrored along each axis that may be.
        rotation_probability: Share of samples that are rotated.
        rotation_degrees: Largest rotation about each axis; None for `rotation_limit`.
        scale_probability: Share of samples that are scaled.
        scale: Range of source voxels a patch voxel; above 1 the object becomes smaller.
        source_scale: The scale that the cut patch is enlarged for, by 1 / source_scale. nnU-Net cuts for 0.85, not for
            its whole range, which keeps the loader's share of voxels in bounds.
    """

    mirror_probability: float = 0.5
    rotation_probability: float = 0.2
    rotation_degrees: float | None = None
    scale_probability: float = 0.2
    scale: Sequence[float] = (0.7, 1.4)
    source_scale: float = 0.85

    def __post_init__(self) -> None:
        """Check the settings."""
        check_probability("spatial.mirror_probability", self.mirror_probability)
        check_probability("spatial.rotation_probability", self.rotation_probability)
        check_probability("spatial.scale_probability", self.scale_probability)
        check_range("spatial.rotation_degrees", (0.0, self.rotation_degrees or 0.0), above=0.0, inclusive=True)
        check_range("spatial.scale", self.scale, above=0.0)
        check_range("spatial.source_scale", (self.source_scale, 1.0), above=0.0)

    def source_size(self, patch_size: Size) -> Size:
        """The patch to cut: the patch itself where nothing is ever rotated or scaled."""
        limit = self._limit(patch_size) if self.rotation_probability > 0 else 0.0
        return source_size(patch_size, limit=limit, scale=self.source_scale if self.scale_probability > 0 else 1.0)

    def draw(self, rng: np.random.Generator, *, patch_size: Size, flip_axes: Sequence[int]) -> SpatialDraw:
        """Draw what moves one sample; only axes in `flip_axes` are ever mirrored."""
        angles, scale = None, None
        if rng.random() < self.rotation_probability:
            limit = self._limit(patch_size)
            count = 3 if len(patch_size) == 3 and thin_axis(patch_size) is None else 1
            angles = tuple(uniform(rng, (-limit, limit)) for _ in range(count))
        if rng.random() < self.scale_probability:
            scale = uniform(rng, self.scale)
        # Drawn for every axis, so that forbidding one does not change what the others get.
        heads = [rng.random() < self.mirror_probability for _ in patch_size]
        flips = tuple(head and axis in flip_axes for axis, head in enumerate(heads))
        return SpatialDraw(flips=flips, angles=angles, scale=scale)

    def _limit(self, patch_size: Size) -> float:
        return rotation_limit(patch_size) if self.rotation_degrees is None else self.rotation_degrees

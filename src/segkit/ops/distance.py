"""Euclidean distances in mm to masks, as tensors on the device where the masks are; nothing here waits for it.

    distance(v) = min over voxels m of the mask of || spacing * (v - m) ||

between the centres of voxels, exact whatever the spacing. On the CPU scipy computes them, mask by mask. Elsewhere the
squared distance is built up axis by axis (Felzenszwalb & Huttenlocher, 2012), by the minimum over all offsets d along
the axis, in a bounded memory:

    D_0 = 0 inside, infinite outside;      D_i(v) = min over d of D_{i-1}(v + d e_i) + (spacing_i d)^2
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from segkit.ops.in_parallel import in_parallel
from segkit.types import Spacing

_SUMS_AT_ONCE = 2**24
_ROUNDING = 4e-6
"""Spacings from headers are rounded: what is 5 mm away counts as 5 mm away. Of squared distances."""


def distance_to(mask: Bool[Tensor, "B K *S"], spacing: Spacing) -> Float[Tensor, "B K *S"]:
    """Distance of every voxel to the nearest voxel of its mask; 0 inside, infinite where the mask is empty.

    Args:
        mask: One mask each sample and class.
        spacing: mm per voxel of the spatial axes.

    Returns:
        float32, mm.

    Raises:
        ValueError: Not one positive spacing a spatial axis.
    """
    _require(mask, spacing)
    if mask.device.type == "cpu":
        result: Tensor = _distance_on_cpu(mask, list(map(float, spacing)))
        return result
    return _distance_by_axes(mask, spacing)


def signed_distance(
    mask: Bool[Tensor, "B K *S"], spacing: Spacing, *, known: Bool[Tensor, "B 1 *S"] | None = None
) -> Float[Tensor, "B K *S"]:
    """Distance across the border of a mask: positive outside, negative inside.

        outside:  + distance to the nearest voxel of the mask
        inside:   - distance to the nearest voxel that is not of the mask

    No voxel is at 0, for none lies on the border, which is between two of them. A mask without a border - empty, or
    everywhere - has 0 everywhere.

    Args:
        mask: One mask each sample and class.
        spacing: mm per voxel of the spatial axes.
        known: Where the mask is known; None: everywhere. The other voxels are in no side and have 0.

    Returns:
        float32, mm.

    Raises:
        ValueError: Not one positive spacing a spatial axis.
    """
    inside, outside = mask, ~mask
    if known is not None:
        inside, outside = inside & known, outside & known
    signed = torch.where(outside, distance_to(inside, spacing), 0) - torch.where(
        inside, distance_to(outside, spacing), 0
    )
    axes = tuple(range(2, mask.ndim))
    border = inside.any(axes, keepdim=True) & outside.any(axes, keepdim=True)
    return torch.where(border, signed, 0)


def near(mask: Bool[Tensor, "B K *S"], distance: float, spacing: Spacing) -> Bool[Tensor, "B K *S"]:
    """Voxels at most so far from a voxel of the mask, its own among them; cheap where the distance is few voxels.

    The passes above with no offset longer than the distance: a voxel that near is near along each axis.

    Args:
        mask: One mask each sample and class.
        distance: 0 or more, mm.
        spacing: mm per voxel of the spatial axes.

    Raises:
        ValueError: A negative distance, or not one positive spacing a spatial axis.
    """
    _require(mask, spacing)
    if distance < 0:
        raise ValueError(f"a distance of {distance} mm")
    squared = _nothing_inside(mask)
    for axis, size in enumerate(spacing, start=2):
        before, squared = squared, squared.clone()
        length = mask.shape[axis]
        for offset in range(1, min(length - 1, math.floor(distance / size * (1 + _ROUNDING))) + 1):
            away = (size * offset) ** 2
            for here, there in ((0, offset), (offset, 0)):
                part = squared.narrow(axis, here, length - offset)
                torch.minimum(part, before.narrow(axis, there, length - offset) + away, out=part)
    return squared <= distance**2 * (1 + _ROUNDING)


@torch.library.custom_op("segkit::distance_on_cpu", mutates_args=(), device_types="cpu")
def _distance_on_cpu(mask: Tensor, spacing: list[float]) -> Tensor:
    """An operation of torch's own kind: compilers and tensors without memory do not look inside."""

    def transform(one: Tensor) -> Tensor:
        if not one.any():
            return torch.full(one.shape, math.inf)
        apart = ndimage.distance_transform_edt(~one.numpy(), sampling=spacing)
        return torch.from_numpy(np.asarray(apart, dtype=np.float32))

    masks = mask.flatten(0, 1)
    if not len(masks):
        return torch.empty(mask.shape)
    return torch.stack(in_parallel(transform, masks)).view(mask.shape)


@_distance_on_cpu.register_fake
def _(mask: Tensor, spacing: list[float]) -> Tensor:  # noqa: ARG001  the same arguments
    return torch.empty(mask.shape, device=mask.device)


def _distance_by_axes(mask: Bool[Tensor, "B K *S"], spacing: Spacing) -> Float[Tensor, "B K *S"]:
    squared = _nothing_inside(mask)
    for axis, size in enumerate(spacing, start=2):
        offset = size * torch.arange(mask.shape[axis], dtype=torch.float32, device=mask.device)
        away = (offset[:, None] - offset).square()
        lines = squared.movedim(axis, -1)
        rows = lines.reshape(-1, mask.shape[axis])
        at_once = max(1, _SUMS_AT_ONCE // away.numel())
        nearest = torch.cat([(piece[:, None] + away).amin(-1) for piece in torch.split(rows, at_once)])
        squared = nearest.view(lines.shape).movedim(-1, axis)
    return squared.sqrt()


def _nothing_inside(mask: Tensor) -> Tensor:
    """0 inside, infinite outside."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, math.inf)


def _require(mask: Tensor, spacing: Spacing) -> None:
    if len(spacing) != mask.ndim - 2 or min(spacing, default=0) <= 0:
        raise ValueError(f"spacing {tuple(spacing)} for masks of {mask.ndim - 2} axes")

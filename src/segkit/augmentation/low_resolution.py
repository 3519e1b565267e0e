"""Simulated low resolution: nearest neighbour down, linear up, axis by axis."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from segkit.augmentation.intensity import apply_one_by_one, keep_outside
from segkit.augmentation.parameters import check_probability, check_range, draw_channels, thin_axis, uniform
from segkit.ops.resample import linear_corners, nearest_index
from segkit.ops.separable import lerp_along_axis, take_along_axis
from segkit.types import Size


def lower_resolution(
    images: Float[Tensor, "B C *S"], valid: Bool[Tensor, "B 1 *S"] | None, zoom: Sequence[float]
) -> Float[Tensor, "B C *S"]:
    """Down to round(zoom length) voxels by the nearest centre, and up again linearly, inside `valid`.

    Args:
        images: (B, C, *S).
        valid: (B, 1, *S) or None.
        zoom: One an axis; an axis whose length does not change keeps its values.

    Returns:
        (B, C, *S); a copy.
    """
    size = images.shape[2:]
    small = [max(1, round(factor * length)) for factor, length in zip(zoom, size, strict=True)]
    axes = [axis for axis, (few, many) in enumerate(zip(small, size, strict=True)) if few < many]
    changed = images if axes else images.clone()
    for axis in axes:
        changed = take_along_axis(changed, axis + 2, nearest_index(size[axis], small[axis]))
    # The last axis, whose voxels are picked one by one and not in rows, while the others are still small.
    for axis in reversed(axes):
        (below, _), (above, fraction) = linear_corners(small[axis], size[axis])
        changed = lerp_along_axis(changed, axis + 2, below, above, fraction)
    return keep_outside(changed, images, valid)


@dataclass(frozen=True)
class LowResolution:
    """Lose resolution by the same zoom along all axes, across thick slices excepted.

    Args:
        probability: Share of samples that may lose resolution.
        channel_probability: Share of their channels that do.
        zoom: Range of the zoom, at most 1.
    """

    probability: float = 0.25
    channel_probability: float = 0.5
    zoom: Sequence[float] = (0.5, 1.0)

    def __post_init__(self) -> None:
        """Check the settings."""
        check_probability("low_resolution.probability", self.probability)
        check_probability("low_resolution.channel_probability", self.channel_probability)
        check_range("low_resolution.zoom", self.zoom, above=0.0)
        check_probability("low_resolution.zoom", self.zoom[1])

    def draw(
        self, rng: np.random.Generator, *, channels: int, patch_size: Size
    ) -> tuple[tuple[float, ...] | None, ...] | None:
        """The zoom of each axis for each channel that is taken."""
        if rng.random() >= self.probability:
            return None
        thin = thin_axis(patch_size)

        def zooms() -> tuple[float, ...]:
            zoom = uniform(rng, self.zoom)
            return tuple(1.0 if axis == thin else zoom for axis in range(len(patch_size)))

        return draw_channels(rng, channels, self.channel_probability, zooms)

    def apply(
        self, images: Float[Tensor, "N 1 *S"], valid: Bool[Tensor, "N 1 *S"] | None, drawn: Sequence[tuple[float, ...]]
    ) -> Float[Tensor, "N 1 *S"]:
        """Image by image: each has a size of its own in between."""
        return apply_one_by_one(lower_resolution, images, valid, drawn)

"""Simulated low resolution: nearest neighbour down, linear up, as one matrix an axis."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from segkit.augmentation.intensity import keep_outside
from segkit.augmentation.parameters import check_probability, check_range, draw_channels, thin_axis, uniform
from segkit.ops.resample import linear_corners, nearest_index
from segkit.ops.separable import apply_along_axes
from segkit.types import Size


def low_resolution_matrix(length: int, zoom: float) -> Float[np.ndarray, "n n"] | None:
    """Down to round(zoom length) voxels by the nearest centre, and up again linearly; None where nothing is lost.

    Both steps are linear in the image and act along each axis by itself, so together they are one matrix with at most
    two entries a row.
    """
    small = max(1, round(zoom * length))
    if small == length:
        return None
    kept = nearest_index(length, small)
    matrix = np.zeros((length, length), dtype=np.float32)
    rows = np.arange(length)
    for corner, weight in linear_corners(small, length):
        np.add.at(matrix, (rows, kept[corner]), weight)
    return matrix


def lower_resolution(
    images: Float[Tensor, "B C *S"],
    valid: Bool[Tensor, "B 1 *S"] | None,
    matrices: Sequence[Float[Tensor, "N _ _"] | None],
) -> Float[Tensor, "B C *S"]:
    """Multiply along each axis by its matrix, inside `valid`.

    Args:
        images: (B, C, *S).
        valid: (B, 1, *S) or None.
        matrices: One (B C, n, n) an axis, from `low_resolution_matrix`; None for an axis that keeps its resolution.

    Returns:
        (B, C, *S).
    """
    changed = apply_along_axes(images.flatten(0, 1), matrices).reshape(images.shape)
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
        """Build the matrices of each image and axis, and multiply."""
        matrices: list[Tensor | None] = []
        for axis, length in enumerate(images.shape[2:]):
            made = [low_resolution_matrix(length, zooms[axis]) for zooms in drawn]
            if all(one is None for one in made):
                matrices.append(None)
                continue
            stacked = np.stack([np.eye(length, dtype=np.float32) if one is None else one for one in made])
            matrices.append(torch.from_numpy(stacked).to(images))
        return lower_resolution(images, valid, matrices)

"""Gaussian blur, one matrix product an axis."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from segkit.augmentation.intensity import keep_outside
from segkit.augmentation.parameters import check_probability, check_range, draw_channels, uniform
from segkit.ops.separable import apply_along_axes
from segkit.types import Size

TRUNCATE = 4.0
"""The kernel ends at this many standard deviations."""


def blur_matrix(length: int, sigma: float) -> Float[np.ndarray, "n n"]:
    """The matrix of a Gaussian of `sigma` voxels along a line, mirrored at the centres of the end voxels.

    w_k proportional to exp(-k^2 / 2 sigma^2), |k| <= 4 sigma; rows sum to 1.
    """
    radius = max(1, int(TRUNCATE * sigma + 0.5))
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    matrix = np.zeros((length, length))
    np.add.at(matrix, _mirrored_band(length, radius), weights[None])
    return matrix.astype(np.float32)


@lru_cache(maxsize=256)
def _mirrored_band(length: int, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """(row, column) of the tap k of each voxel; columns beyond the ends are reflected back."""
    rows = np.arange(length)[:, None]
    period = max(1, 2 * (length - 1))
    columns = np.abs(rows + np.arange(-radius, radius + 1)[None]) % period
    return rows, np.minimum(columns, period - columns)


def blur(
    images: Float[Tensor, "B C *S"],
    valid: Bool[Tensor, "B 1 *S"] | None,
    matrices: Sequence[Float[Tensor, "N _ _"]],
) -> Float[Tensor, "B C *S"]:
    """Multiply along each axis by its blur matrix, inside `valid`.

    Args:
        images: (B, C, *S).
        valid: (B, 1, *S) or None.
        matrices: One (B C, n, n) an axis, from `blur_matrix`.

    Returns:
        (B, C, *S).
    """
    changed = apply_along_axes(images.flatten(0, 1), matrices).reshape(images.shape)
    return keep_outside(changed, images, valid)


@dataclass(frozen=True)
class Blur:
    """Gaussian blur with a width of its own for each channel and axis.

    Args:
        probability: Share of samples that may be blurred.
        channel_probability: Share of their channels that are.
        sigma: Range of the standard deviation in voxels.
    """

    probability: float = 0.2
    channel_probability: float = 0.5
    sigma: Sequence[float] = (0.5, 1.0)

    def __post_init__(self) -> None:
        """Check the settings."""
        check_probability("blur.probability", self.probability)
        check_probability("blur.channel_probability", self.channel_probability)
        check_range("blur.sigma", self.sigma, above=0.0)

    def draw(
        self, rng: np.random.Generator, *, channels: int, patch_size: Size
    ) -> tuple[tuple[float, ...] | None, ...] | None:
        """One sigma an axis for each channel that is taken."""
        if rng.random() >= self.probability:
            return None
        return draw_channels(
            rng, channels, self.channel_probability, lambda: tuple(uniform(rng, self.sigma) for _ in patch_size)
        )

    def apply(
        self, images: Float[Tensor, "N 1 *S"], valid: Bool[Tensor, "N 1 *S"] | None, drawn: Sequence[tuple[float, ...]]
    ) -> Float[Tensor, "N 1 *S"]:
        """Build the matrices of each image and axis, and multiply."""
        matrices = []
        for axis, length in enumerate(images.shape[2:]):
            stacked = np.stack([blur_matrix(length, sigmas[axis]) for sigmas in drawn])
            matrices.append(torch.from_numpy(stacked).to(images))
        return blur(images, valid, matrices)

"""Gaussian blur, axis by axis."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from segkit.augmentation.intensity import apply_one_by_one, keep_outside
from segkit.augmentation.parameters import check_probability, check_range, draw_channels, uniform
from segkit.ops.separable import convolve_along_axis
from segkit.types import Size


def blur_weights(sigma: float) -> list[float]:
    """w_0 to w_r of a Gaussian of `sigma` voxels, proportional to exp(-k^2 / 2 sigma^2); w_0 + 2 (w_1 + ... + w_r) = 1.

    It ends where nnU-Net's ends: at the odd number of voxels nearest to 6 sigma + 1/2, so r = floor(3 sigma + 1/4).
    """
    weights = np.exp(-0.5 * (np.arange(max(1, int(3 * sigma + 0.25)) + 1) / sigma) ** 2)
    return [float(weight) for weight in weights / (2 * weights.sum() - weights[0])]


def blur(
    images: Float[Tensor, "B C *S"], valid: Bool[Tensor, "B 1 *S"] | None, sigma: Sequence[float]
) -> Float[Tensor, "B C *S"]:
    """Blur by a Gaussian of `sigma` voxels along each axis, inside `valid`; mirrored at the ends.

    Args:
        images: (B, C, *S).
        valid: (B, 1, *S) or None.
        sigma: One standard deviation an axis.

    Returns:
        (B, C, *S).
    """
    changed = images
    for axis, width in enumerate(sigma):
        changed = convolve_along_axis(changed, axis + 2, blur_weights(width))
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
        """Blur image by image: each has kernels of its own."""
        return apply_one_by_one(blur, images, valid, drawn)

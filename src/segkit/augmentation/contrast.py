"""Contrast: distance from the mean times a factor, kept within the range there was."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from segkit.augmentation.intensity import column, expand, keep_outside
from segkit.augmentation.parameters import around_one, check_probability, check_range, draw_channels
from segkit.ops.intensity import extrema, mean


def scale_contrast(
    images: Float[Tensor, "B C *S"], valid: Bool[Tensor, "B 1 *S"] | None, factor: Float[Tensor, "B C"]
) -> Float[Tensor, "B C *S"]:
    """clip(factor (x - mean) + mean, min, max), mean and range taken inside `valid`."""
    centre = mean(images, valid)
    low, high = extrema(images, valid)
    stretch = expand(factor, images)
    changed = (images * stretch).add_(centre * (1 - stretch))
    torch.maximum(changed, low, out=changed)
    torch.minimum(changed, high, out=changed)
    return keep_outside(changed, images, valid)


@dataclass(frozen=True)
class Contrast:
    """Stretch or squeeze each channel about its mean by a factor of its own, as often below 1 as above.

    Args:
        probability: Share of samples.
        factor: Range of the factor.
    """

    probability: float = 0.15
    factor: Sequence[float] = (0.75, 1.25)

    def __post_init__(self) -> None:
        """Check the settings."""
        check_probability("contrast.probability", self.probability)
        check_range("contrast.factor", self.factor, above=0.0)

    def draw(self, rng: np.random.Generator, *, channels: int, **_: object) -> tuple[float | None, ...] | None:
        """One factor a channel."""
        if rng.random() >= self.probability:
            return None
        return draw_channels(rng, channels, 1.0, lambda: around_one(rng, self.factor))

    def apply(
        self, images: Float[Tensor, "N 1 *S"], valid: Bool[Tensor, "N 1 *S"] | None, drawn: Sequence[float]
    ) -> Float[Tensor, "N 1 *S"]:
        """Stretch each image by its factor."""
        return scale_contrast(images, valid, column(drawn, images))

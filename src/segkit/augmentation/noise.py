"""Additive Gaussian noise."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from segkit.augmentation.intensity import column, expand, keep_outside
from segkit.augmentation.parameters import check_probability, check_range, uniform


@dataclass(frozen=True)
class NoiseDraw:
    """Standard deviation of the noise, and the seed of its field."""

    sigma: float
    seed: int


@dataclass(frozen=True)
class Noise:
    """Gaussian noise of one strength for all channels of a sample, each with a field of its own.

    Args:
        probability: Share of samples that get noise.
        sigma: Range of the standard deviation, in units of the normalised image.
    """

    probability: float = 0.1
    sigma: Sequence[float] = (0.0, 0.1)

    def __post_init__(self) -> None:
        """Check the settings."""
        check_probability("noise.probability", self.probability)
        check_range("noise.sigma", self.sigma, above=0.0, inclusive=True)

    def draw(self, rng: np.random.Generator, *, channels: int, **_: object) -> tuple[NoiseDraw | None, ...] | None:
        """One sigma for the sample and the seed of a field for each channel."""
        if rng.random() >= self.probability:
            return None
        sigma = uniform(rng, self.sigma)
        return tuple(NoiseDraw(sigma, int(seed)) for seed in rng.integers(1 << 63, size=channels))

    def apply(
        self, images: Float[Tensor, "N 1 *S"], valid: Bool[Tensor, "N 1 *S"] | None, drawn: Sequence[NoiseDraw]
    ) -> Float[Tensor, "N 1 *S"]:
        """Make a field of standard normal numbers on the device, each from its own seed, and add sigma times it."""
        field = torch.empty_like(images)
        for one, seed in zip(field, (draw.seed for draw in drawn), strict=True):
            one.normal_(generator=torch.Generator(images.device).manual_seed(seed))
        sigma = column([draw.sigma for draw in drawn], images)
        return keep_outside(field.mul_(expand(sigma, images)).add_(images), images, valid)

"""Gamma on the image's own range, for data of any sign."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from segkit.augmentation.intensity import column, expand, keep_outside
from segkit.augmentation.parameters import around_one, check_probability, check_range, draw_channels
from segkit.ops.intensity import extrema, moments

_TINY = 1e-7


def gamma(
    images: Float[Tensor, "B C *S"],
    valid: Bool[Tensor, "B 1 *S"] | None,
    exponent: Float[Tensor, "B C"],
    *,
    invert: bool = False,
) -> Float[Tensor, "B C *S"]:
    """Power of the values on their range, then the old mean and standard deviation again.

    With low, high, mean and std over `valid`, r = high - low:

        y = r ((x - low) / r)^exponent + low,     result = (y - mean(y)) std(x) / std(y) + mean(x)

    `invert` does this to -x and returns the negative: dark values are spread where bright ones were. A power of
    z-scored values themselves would be NaN for half of them; on the range, negative values survive, and the
    normalisation that the network expects is given back. A constant image comes back unchanged.

    Args:
        images: (B, C, *S).
        valid: (B, 1, *S) or None; statistics are taken and values changed inside only.
        exponent: (B, C).
        invert: Work on the inverted image.

    Returns:
        (B, C, *S).
    """
    low, high = extrema(images, valid)
    extent = (high - low).clamp_(min=_TINY)
    mean_before, std_before = moments(images, valid)
    # On [0, 1] throughout: an affine map of y changes nothing in the result. Rounding (and what is outside) may fall
    # beyond [0, 1], where the power is NaN.
    unit = (high - images) if invert else (images - low)
    unit = unit.div_(extent).clamp_(0, 1).pow_(expand(exponent, images))
    mean_after, std_after = moments(unit, valid)
    gain = std_before / std_after.clamp_(min=_TINY)
    if invert:
        gain = -gain
    return keep_outside(unit.sub_(mean_after).mul_(gain).add_(mean_before), images, valid)


@dataclass(frozen=True)
class Gamma:
    """Gamma with an exponent of its own for each channel, as often below 1 as above.

    Args:
        probability: Share of samples.
        exponent: Range of the exponent.
        invert: Work on the inverted image.
    """

    probability: float = 0.3
    exponent: Sequence[float] = (0.7, 1.5)
    invert: bool = False

    def __post_init__(self) -> None:
        """Check the settings."""
        check_probability("gamma.probability", self.probability)
        check_range("gamma.exponent", self.exponent, above=0.0)

    def draw(self, rng: np.random.Generator, *, channels: int, **_: object) -> tuple[float | None, ...] | None:
        """One exponent a channel."""
        if rng.random() >= self.probability:
            return None
        return draw_channels(rng, channels, 1.0, lambda: around_one(rng, self.exponent))

    def apply(
        self, images: Float[Tensor, "N 1 *S"], valid: Bool[Tensor, "N 1 *S"] | None, drawn: Sequence[float]
    ) -> Float[Tensor, "N 1 *S"]:
        """Raise each image to its exponent."""
        return gamma(images, valid, column(drawn, images), invert=self.invert)

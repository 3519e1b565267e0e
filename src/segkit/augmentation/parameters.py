"""How parameters are drawn: probabilities, ranges, one draw a channel."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from segkit.errors import UsageError
from segkit.types import Size

ANISOTROPIC = 3.0
"""A patch whose longest side is more than this many times its shortest is treated slice by slice."""

P = TypeVar("P")


def uniform(rng: np.random.Generator, limits: Sequence[float]) -> float:
    """A number of the uniform distribution over [low, high)."""
    return float(rng.uniform(limits[0], limits[1]))


def around_one(rng: np.random.Generator, limits: Sequence[float]) -> float:
    """A factor that is as often below 1 as above it, uniform over [low, 1) or [1, high).

    A plain uniform draw over 0.7 ... 1.5 would be above 1 in five of eight cases and drift the data on average. Where
    the range does not hold 1, the draw is uniform over all of it.
    """
    low, high = limits
    if not low < 1 < high:
        return uniform(rng, limits)
    return uniform(rng, (low, 1.0) if rng.random() < 0.5 else (1.0, high))


def draw_channels(
    rng: np.random.Generator, channels: int, probability: float, draw_one: Callable[[], P]
) -> tuple[P | None, ...] | None:
    """One draw a channel, each taken with `probability`; None where no channel was taken."""
    drawn = tuple(draw_one() if rng.random() < probability else None for _ in range(channels))
    return drawn if any(one is not None for one in drawn) else None


def thin_axis(patch_size: Size) -> int | None:
    """The axis across the slices of an anisotropic 3D patch (longest : shortest > 3), or None.

    Voxels of such patches are far longer across the slices than within: what mixes the two directions (rotation,
    scaling, simulated low resolution) acts within the slices only.
    """
    if len(patch_size) < 3 or max(patch_size) / min(patch_size) <= ANISOTROPIC:
        return None
    return int(np.argmin(patch_size))


def check_probability(name: str, value: float) -> None:
    """Raise UsageError unless `value` lies in [0, 1]."""
    if not 0 <= value <= 1:
        raise UsageError(
            f"{name} is not a probability", where=f"augmentation: {name}", why=f"got {value}", mend=f"{name}=0.2"
        )


def check_range(name: str, limits: Sequence[float], *, above: float, inclusive: bool = False) -> None:
    """Raise UsageError unless `limits` is [low, high] with low <= high and low > `above` (>= if inclusive)."""
    ordered = len(limits) == 2 and limits[0] <= limits[1]
    if ordered and (limits[0] > above or (inclusive and limits[0] == above)):
        return
    sign = ">=" if inclusive else ">"
    raise UsageError(
        f"{name} is not a range [low, high] with {sign} {above:g}",
        where=f"augmentation: {name}",
        why=f"got {list(limits)}",
        mend=f"{name}=[{max(above, 0.5):g},{max(above, 0.5) + 1:g}]",
    )

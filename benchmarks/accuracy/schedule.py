"""The schedule the peer is given, and how many steps fill a time; needs neither segkit nor nnU-Net."""

import math
from collections.abc import Callable

WARM_UP = 0.05


def cosine_multiplier(total_steps: int, *, warm_up: float = WARM_UP) -> Callable[[int], float]:
    """Linear over the first w = warm_up x T steps, (t + 1) / (w + 1); then (1 + cos(pi (t - w) / (T - w))) / 2.

    The curve of `segkit.module.schedules.cosine`, written again because the peers' environment need not have segkit.

    Args:
        total_steps: T; the multiplier is zero there.
        warm_up: Share of the steps in which the rate rises.
    """
    width = round(warm_up * total_steps)

    def multiplier(step: int) -> float:
        if step < width:
            return (step + 1) / (width + 1)
        progress = min(1.0, (step - width) / max(1, total_steps - width))
        return 0.5 * (1 + math.cos(math.pi * progress))

    return multiplier


def steps_within(budget: float, *, start_up: float, per_step: float) -> int:
    """How many steps of `per_step` seconds fill what `start_up` leaves of `budget` seconds; at least one."""
    return max(1, math.floor((budget - start_up) / per_step))

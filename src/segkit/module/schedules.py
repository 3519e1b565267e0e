"""Learning-rate schedules, one factory each: `factory(optimizer, *, total_steps, ...) -> scheduler`.

Every schedule but the plateau is a pure function of the optimizer step t = 0, 1, ..., total_steps - 1 that
multiplies the rate of the optimizer: resuming needs t and nothing else, and a run that is prolonged follows
the schedule of its new horizon from there.

Reference: poly as in nnU-Net (which steps it once an epoch; here once a step, the same curve in finer steps);
cosine as in Loshchilov and Hutter 2017, arXiv 1608.03983; cyclic as in Smith 2017, arXiv 1506.01186.
"""

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

Multiplier = Callable[[int], float]


def poly(optimizer: Optimizer, *, total_steps: int, exponent: float = 0.9) -> LRScheduler:
    """(1 - t / T)^exponent: from the full rate to zero at T = total_steps."""

    def multiplier(step: int) -> float:
        return float(max(0.0, 1.0 - step / total_steps) ** exponent)

    return LambdaLR(optimizer, multiplier)


def cosine(optimizer: Optimizer, *, total_steps: int, warmup_fraction: float = 0.05, final: float = 0.0) -> LRScheduler:
    """Linear warm-up over the first w = warmup_fraction x T steps, then half a cosine down to `final`.

    t < w: (t + 1) / (w + 1); after that: final + (1 - final) (1 + cos(pi (t - w) / (T - w))) / 2.

    Raises:
        ValueError: If `warmup_fraction` lies outside [0, 1).
    """
    if not 0 <= warmup_fraction < 1:
        raise ValueError(f"warmup_fraction must lie in [0, 1), got {warmup_fraction}")
    warmup = round(warmup_fraction * total_steps)

    def multiplier(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, multiplier)


def cyclic(
    optimizer: Optimizer,
    *,
    total_steps: int,  # noqa: ARG001  (one signature for all schedules)
    base_lr: float,
    max_lr: float,
    step_size: int,
) -> LRScheduler:
    """Triangular: from `base_lr` up to `max_lr` in `step_size` steps and down again, for ever.

    The rates are absolute, those of torch's CyclicLR; momentum is left alone. `total_steps` is not read: a
    cycle does not know the end.
    """

    def rate(step: int) -> float:
        distance = abs(step / step_size - 2 * math.floor(1 + step / (2 * step_size)) + 1)
        return base_lr + (max_lr - base_lr) * max(0.0, 1 - distance)

    def relative_to(lr: float) -> Multiplier:
        return lambda step: rate(step) / lr

    return LambdaLR(optimizer, [relative_to(group["lr"]) for group in optimizer.param_groups])


def plateau(
    optimizer: Optimizer,
    *,
    total_steps: int,  # noqa: ARG001
    factor: float = 0.5,
    patience: int = 10,
    minimum: float = 1e-6,
) -> ReduceLROnPlateau:
    """Multiply the rate by `factor` when `val/loss` has not fallen for `patience` validations.

    It is stepped once after each validation, never between. `total_steps` is not read.
    """
    return ReduceLROnPlateau(optimizer, mode="min", factor=factor, patience=patience, min_lr=minimum)


def constant(optimizer: Optimizer, *, total_steps: int) -> LRScheduler:  # noqa: ARG001
    """The rate of the optimizer throughout. `total_steps` is not read."""
    return LambdaLR(optimizer, lambda _step: 1.0)

"""A training of given seconds: how many steps fit into them, and how steps are divided into epochs.

    budget >= spent + steps x step_s + epochs x epoch_s + validations x validation_s + ending

The largest number of steps for which this holds is the run's `max_steps`. Nothing else of what was measured enters
the plan: epochs, their length and the distance of validations follow from `max_steps` by rule, so that
`trainer.max_steps=N` makes the same run again on a machine of any speed.
"""

import math
import re
from dataclasses import dataclass

from segkit.errors import UsageError

EPOCHS = 20
"""Epochs that steps are divided into, where those are neither too short nor too long."""
VALIDATIONS = 10
"""Validations of a run whose length is given in steps: under a schedule that ends, the early ones choose nothing."""
_LONGEST = 10
"""An epoch has at most this many times the rung's steps: lines of progress must come in sight."""
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_DURATION = re.compile(r"(?:(?P<d>[\d.]+)d)?(?:(?P<h>[\d.]+)h)?(?:(?P<m>[\d.]+)m)?(?:(?P<s>[\d.]+)s)?")


@dataclass(frozen=True)
class Tempo:
    """What was timed, in seconds.

    Args:
        step_s: One optimizer step, its data and augmentation included.
        epoch_s: What an epoch costs beside its steps: its checkpoint, above all.
        validation_s: One validation of all tuning cases.
        steps: Steps that were timed.
    """

    step_s: float
    epoch_s: float
    validation_s: float
    steps: int


def seconds(text: str) -> float:
    """Seconds of a duration such as 90s, 10m, 1h30m, 2d.

    Raises:
        ValueError: It is none, or not positive.
    """
    found = _DURATION.fullmatch(text.strip().lower())
    parts = {} if found is None else {unit: value for unit, value in found.groupdict().items() if value}
    total = sum(float(value) * _UNITS[unit] for unit, value in parts.items())
    if not 0 < total < math.inf:
        raise ValueError(f"{text!r} is no duration; write 90s, 10m, 1h30m or 2d")
    return total


def divided(max_steps: int, *, shortest: int) -> tuple[int, int]:
    """Epochs and steps an epoch, as near to `EPOCHS` epochs as their length allows.

    Args:
        max_steps: Steps in all.
        shortest: Steps of the shortest epoch, the rung's own.

    Returns:
        Two numbers whose product is `max_steps`, or the nearest below it that divides well.
    """
    length = min(max(max_steps / EPOCHS, shortest), _LONGEST * shortest)
    wanted = max(1, round(max_steps / length))
    near = range(max(1, min(math.ceil(0.8 * wanted), wanted - 1)), max(math.floor(1.2 * wanted), wanted + 1) + 1)
    epochs = min((e for e in near if e <= max_steps), key=lambda e: (max_steps % e, abs(e - wanted)), default=1)
    return epochs, max_steps // epochs


def steps_within(
    budget_s: float, tempo: Tempo, *, spent_s: float, ending_s: float, shortest: int, every_at_least: int = 1
) -> int:
    """The largest number of steps that fits and that `divided` divides without a rest.

    Args:
        budget_s: Seconds of the whole run.
        tempo: What was timed.
        spent_s: Seconds that are gone.
        ending_s: Seconds that the end of a run takes.
        shortest: See `divided`.
        every_at_least: Smallest number of epochs between validations.

    Raises:
        UsageError: Nothing fits.
    """

    def cost(steps: int) -> float:
        epochs, length = divided(steps, shortest=shortest)
        validations = math.ceil(epochs / max(every_at_least, validation_distance(epochs)))
        return epochs * (length * tempo.step_s + tempo.epoch_s) + validations * tempo.validation_s

    room = budget_s - spent_s - ending_s
    steps = max(0, int(room / tempo.step_s))
    while steps > 0 and (cost(steps) > room or math.prod(divided(steps, shortest=shortest)) != steps):
        # The estimate misses epochs and validations: approached in strides, the last ones one by one.
        steps -= max(1, int((cost(steps) - room) / tempo.step_s / 2))
    if steps < 1:
        raise UsageError(
            "The budget is over before training can begin.",
            where="trainer.budget",
            why=f"of {budget_s:.0f} s, {spent_s:.0f} s went into opening, preparing and timing, {ending_s:.0f} s are "
            f"kept for the end, and a step takes {tempo.step_s:.2f} s",
            mend=f"trainer.budget={math.ceil((spent_s + ending_s + 100 * tempo.step_s) / 60)}m, or prepare the data "
            "ahead: python -m segkit.prepare with the same data.root and paths.cache",
        )
    return steps


def validation_distance(epochs: int) -> int:
    """Epochs between validations of a run whose length is given in steps."""
    return max(1, math.ceil(epochs / VALIDATIONS))

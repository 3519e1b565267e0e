"""Weight of a loss by epoch: linear between the epochs that are named, constant before the first and after the last.

    w(e) = w_i + (w_j - w_i) (e - e_i) / (e_j - e_i)        for e_i <= e <= e_j, neighbours among those named

e counts epochs from 0 and is constant within one.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from segkit.errors import UsageError

Points: TypeAlias = tuple[tuple[int, float], ...]
"""(epoch, weight), by rising epoch."""


@dataclass(frozen=True)
class WeightSchedule:
    """A weight as a function of the epoch.

    Args:
        points: At least one.
    """

    points: Points

    @property
    def last(self) -> int:
        """The epoch from which the weight stays as it is."""
        return self.points[-1][0]

    def at(self, epoch: int) -> float:
        """The weight in an epoch."""
        after = bisect_right(self.points, epoch, key=lambda point: point[0])
        if after == 0 or after == len(self.points):
            return self.points[0 if after == 0 else -1][1]
        (left, low), (right, high) = self.points[after - 1 : after + 1]
        return low + (high - low) * (epoch - left) / (right - left)


def constant(weight: float | int) -> WeightSchedule:
    """The same weight in every epoch."""
    return WeightSchedule(((0, float(weight)),))


def read_points(points: object, *, where: str) -> Points:
    """The points of a schedule as the configuration writes them, {epoch: weight}.

    Args:
        points: What stands there; epochs are whole numbers or their digits.
        where: Key of the configuration, for messages.

    Raises:
        UsageError: It is no mapping, an epoch no whole number of at least 0, a weight no number of at least 0.
    """
    if not isinstance(points, Mapping) or not points or not all(map(_is_point, points.keys(), points.values())):
        raise UsageError(
            "a schedule gives a weight of at least 0 by epochs counted from 0",
            where=where,
            why=f"found {str(points)[:200]}",
            mend=f"'{where}={{0: 1.0, 50: 0.1}}'",
        )
    return tuple(sorted((int(epoch), float(weight)) for epoch, weight in points.items()))


def _is_point(epoch: object, weight: object) -> bool:
    if isinstance(epoch, bool) or isinstance(weight, bool):
        return False
    whole = epoch >= 0 if isinstance(epoch, int) else isinstance(epoch, str) and epoch.isdecimal()
    return whole and isinstance(weight, int | float) and 0 <= weight < math.inf

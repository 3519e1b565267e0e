"""Weight of a loss by epoch: linear between the epochs that are named, constant before the first and after the last.

    w(e) = w_i + (w_j - w_i) (e - e_i) / (e_j - e_i)        for e_i <= e <= e_j, neighbours among those named

e counts epochs from 0 and is constant within one.
"""

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


def constant(weight: float) -> WeightSchedule:
    """The same weight in every epoch."""
    return WeightSchedule(((0, float(weight)),))


def read_points(points: Mapping[int | str, float], *, where: str) -> Points:
    """The points of a schedule as the configuration writes them, {epoch: weight}.

    Args:
        points: Epochs as whole numbers or their digits.
        where: Key of the configuration, for messages.

    Raises:
        UsageError: An epoch is no whole number of at least 0, a weight is no number of at least 0.
    """
    read: dict[int, float] = {}
    for epoch, weight in points.items() if isinstance(points, Mapping) else [(points, None)]:
        whole = isinstance(epoch, int) or (isinstance(epoch, str) and epoch.isdecimal())
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not whole or isinstance(epoch, bool) or int(epoch) < 0 or not number or not 0 <= weight < float("inf"):
            raise UsageError(
                "a schedule gives a weight of at least 0 by epochs counted from 0",
                where=where,
                why=f"found {epoch!r}" + ("" if weight is None else f": {weight!r}"),
                mend=f"'{where}={{0: 1.0, 50: 0.1}}'",
            )
        read[int(epoch)] = float(weight)
    return tuple(sorted(read.items()))

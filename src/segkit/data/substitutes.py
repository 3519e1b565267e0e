"""Which case stands in for one that cannot be read: a pure function of (seed, n) and of which those are.

No table of unreadable cases is kept: each sample tries its own case first. So it does not matter which worker met
a case before, nor how many there are, and a drive that was away for a second costs no more than that second.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from segkit.data.sampling import Draw, SamplingRule, draw
from segkit.data.stored_case import StoredCase
from segkit.errors import DataError
from segkit.ops.keyed_random import generator
from segkit.types import Size

OnError: TypeAlias = Literal["fail", "skip"]

SUBSTITUTE_STREAM = 7


@dataclass(frozen=True)
class Skipping:
    """How to go on where a case cannot be read.

    Args:
        seed: Of the run.
        rule: See `SamplingRule`.
        max_skipped: Most cases that may be left out.
    """

    seed: int
    rule: SamplingRule
    max_skipped: int

    def candidates(self, n: int, first: int, num_cases: int) -> Iterator[int]:
        """Cases to try for sample n: its own, then all others in an order of its own."""
        yield first
        order = generator(self.seed, n, SUBSTITUTE_STREAM).permutation(num_cases)
        yield from (int(case) for case in order if case != first)

    def draw_in(self, case: StoredCase, index: int, n: int) -> Draw:
        """The patch that sample n has if it is of this case."""
        return draw(self.seed, n, (case,), self.rule)._replace(case=index)


def default_limit(num_cases: int) -> int:
    """Most cases that may be left out, where nobody said: one in twenty, at least one."""
    return max(1, num_cases // 20)


class Placeable:
    """A case as the sampler sees it while cases may be left out: never an error.

    A case whose locations cannot be read gives patches anywhere; whoever reads the patch finds the same fault and
    takes another case.
    """

    def __init__(self, case: StoredCase) -> None:
        self._case = case

    @property
    def shape(self) -> Size:
        """Voxels."""
        return self._case.shape

    @property
    def classes(self) -> tuple[int, ...]:
        """Foreground classes that can be located."""
        try:
            check_locations(self._case)
        except DataError:
            return ()
        return self._case.classes

    @property
    def locations(self) -> Mapping[int, tuple[int, int]]:
        """Rows of the kept voxels of each class."""
        return self._case.locations

    def location(self, index: int, row: int) -> tuple[int, ...]:
        """A voxel of a class."""
        return self._case.location(index, row)


def check_locations(case: StoredCase) -> None:
    """Open the locations of a case, if it has any.

    Raises:
        DataError: They cannot be read.
    """
    case.optional("locations")

"""How two programs are timed against each other: interleaved, in rotating order, compared round by round.

A row names contenders. Each is built once, outside the clock, warmed up, and then run once a round; the order rotates
from round to round, so that no contender always comes after the same other one. What a round does to the machine (its
clock, its caches, a neighbour) it does to all contenders of that round, so the ratio is taken round by round:

    ratio = median over rounds r of theirs_r / ours_r,   spread = 10th to 90th percentile of the same quotients

The functions down to `measure` are arithmetic and know nothing of what is timed.
"""

import contextlib
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from benchmarks.bench import Bench, DeviceKind

Unit: TypeAlias = Literal["ms", "s", "MB"]

LOW, HIGH = 0.1, 0.9
"""The quantiles that bound a spread."""


@dataclass(frozen=True)
class Measured:
    """One run of one contender.

    Args:
        value: In the row's unit; less is better.
        beside: Other figures of the same run by name, reported but not compared.
    """

    value: float
    beside: Mapping[str, float] = field(default_factory=dict)


Run: TypeAlias = Callable[[], Measured]


@dataclass(frozen=True)
class Contender:
    """One program that takes part in a row.

    Args:
        build: Sets it up, outside the clock, and returns what is run once a round.
        precision: Arithmetic it computes in, as the report names it.
        apart: Whether every run has a process of its own, built afresh.
        imports: Modules that such a process loads first; its memory after them is the baseline.
    """

    build: Callable[[], Run]
    precision: str
    apart: bool = False
    imports: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """One line of a comparison.

    Args:
        peer: Contender of another project.
        ours: Ours as it comes.
        same: Ours in the peer's precision; None where `ours` is.
    """

    peer: str
    ours: str
    same: str | None = None


@dataclass(frozen=True)
class Row:
    """One thing that is timed.

    Args:
        name: As typed on the command line.
        title: As the report calls it.
        what: What is timed, in a sentence or two.
        unit: Of `Measured.value`.
        contenders: By name; only named here, built later.
        pairs: Who is compared with whom.
        rounds: Rounds that count.
        warmup: Rounds before them that do not.
        threads: Torch's threads while it runs; None: all cores.
        devices: Where there is something to time.
        before: Makes what the contenders read, once and outside every clock.
    """

    name: str
    title: str
    what: str
    unit: Unit
    contenders: Callable[[Bench], Mapping[str, Contender]]
    pairs: tuple[Pair, ...]
    rounds: int
    warmup: int = 1
    threads: int | None = None
    devices: frozenset[DeviceKind] = frozenset({"cpu", "cuda"})
    before: Callable[[Bench], None] | None = None


@dataclass(frozen=True)
class Spread:
    """Median, and the quantiles that bound the middle of a sample."""

    median: float
    low: float
    high: float


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of a sample lies, linear between neighbours in order.

    Raises:
        ValueError: No values.
    """
    if not values:
        raise ValueError("no values, no quantile")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def spread(values: Sequence[float]) -> Spread:
    """Median and spread of a sample."""
    return Spread(quantile(values, 0.5), quantile(values, LOW), quantile(values, HIGH))


def paired_ratio(theirs: Sequence[float], ours: Sequence[float]) -> Spread:
    """Median and spread of theirs / ours by round: how many times as much of time or memory they take.

    Raises:
        ValueError: They do not have the same number of rounds.
    """
    if len(theirs) != len(ours):
        raise ValueError(f"{len(theirs)} rounds of theirs, {len(ours)} of ours: a ratio is taken round by round")
    return spread([a / b for a, b in zip(theirs, ours, strict=True)])


def rotated(names: Sequence[str], turn: int) -> list[str]:
    """The order of a round: one further each time, so that each is first, and last, equally often."""
    start = turn % len(names)
    return [*names[start:], *names[:start]]


def measure(runs: Mapping[str, Run], *, rounds: int, warmup: int) -> dict[str, list[Measured]]:
    """Run all contenders round by round; see the head of this file.

    Args:
        runs: By name, built.
        rounds: Rounds that count.
        warmup: Rounds before them, in the same rotation.

    Returns:
        By name, the values of the rounds that count; the r-th values of all names are from one round.
    """
    found: dict[str, list[Measured]] = {name: [] for name in runs}
    for turn in range(-warmup, rounds):
        for name in rotated(list(runs), turn):
            with quietly():
                measured = runs[name]()
            if turn >= 0:
                found[name].append(measured)
    return found


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """What contenders print to standard output is not shown: the report is."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def timed(function: Callable[[], object], *, unit: Unit, times: int = 1) -> Run:
    """A run that calls a function so many times and takes the mean of the wall-clock times."""
    factor = {"ms": 1e3, "s": 1.0}[unit]

    def run() -> Measured:
        started = time.perf_counter()
        for _ in range(times):
            function()
        return Measured((time.perf_counter() - started) / times * factor)

    return run

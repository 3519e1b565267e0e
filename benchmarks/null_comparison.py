"""How often `compare` is wrong: `python -m benchmarks.null_comparison [--simulations N] [--bca]`, `make bench-compare`.

Equal models are compared again and again on made-up test sets whose Dice looks like real Dice: bounded, skewed to the
left, several cases a person, a case that is hard for one model hard for the other. Printed is how often a difference
was shown where there is none, and how often the interval held the true one. Nothing here is timed.

    hippocampus   mean 0.875, standard deviation 0.03 over cases and 0.02 over people, correlation of the models 0.85
    lesions       mean 0.6, standard deviation over cases 0.3; either model misses one in eight (Dice 0), a third of
                  these are the same; correlation 0.43, 0.75 where both find it

One seed a side where none are named. Of methods the seeds differ by themselves; each comparison draws new ones.
`effect` is lesions where the candidate finds half of what it would have missed: not equal, and the differences are
skewed.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from scipy.special import expit

from segkit.evaluation.comparison import ALPHA
from segkit.metrics.paired_comparison import group_means, holm, paired_difference

Values: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

CLASSES = 2
PEOPLE = (10, 20, 50)
SIMULATIONS = (200, 5000)


@dataclass(frozen=True)
class World:
    """Where test sets come from. Everything but `missed` is in logits of Dice.

    Args:
        name: In the table.
        centre: Location of Dice.
        person: Spread over people, skewed to the left; the same for both models.
        case: Spread over the cases of a person, likewise.
        own_person: Spread over people that each model has for itself.
        own_case: Spread over cases that each seed has for itself.
        seed: Spread of whole seeds.
        missed: Share of cases in which a model finds nothing.
        mended: Share of these that the candidate finds all the same; 0: the models are equal.
        seeds: Seeds a side.
    """

    name: str
    centre: float
    person: float
    case: float
    own_person: float
    own_case: float
    seed: float = 0.0
    missed: float = 0.0
    mended: float = 0.0
    seeds: int = 1


HIPPOCAMPUS = World("hippocampus", centre=1.98, person=0.22, case=0.1, own_person=0.06, own_case=0.09)
LESIONS = World("lesions", centre=0.95, person=0.7, case=0.7, own_person=0.3, own_case=0.5, missed=0.125)
WORLDS = (
    HIPPOCAMPUS,
    LESIONS,
    replace(LESIONS, name="lesions, effect", mended=0.5),
    replace(HIPPOCAMPUS, name="hippocampus, 3 seeds, no seed effect", seeds=3),
    replace(HIPPOCAMPUS, name="hippocampus, 3 seeds", seeds=3, seed=0.03),
    replace(HIPPOCAMPUS, name="hippocampus, 3 seeds, large seed effect", seeds=3, seed=0.15),
    replace(HIPPOCAMPUS, name="hippocampus, 5 seeds", seeds=5, seed=0.03),
    replace(LESIONS, name="lesions, 3 seeds", seeds=3, seed=0.15),
    replace(HIPPOCAMPUS, name="hippocampus, 1 seed taken for a method", seed=0.03),
)


@dataclass(frozen=True)
class Rates:
    """Shares of the comparisons.

    Args:
        shown: With a difference shown in any row of the family.
        test: With a Holm-adjusted p-value below the level in any row.
        coverage: Whose interval held the true difference, mean over the rows.
        bca: The same of BCa bootstrap intervals by group, of the first class; NaN where they were not asked for.
    """

    shown: float
    test: float
    coverage: float
    bca: float


def draw(world: World, n_people: int, rng: np.random.Generator) -> tuple[Values, Values, list[str]]:
    """One test set scored by both sides: Dice by seed, case and class, and the person of each case.

    A person has one to three cases.
    """
    counts = rng.integers(1, 4, n_people)
    member = np.repeat(np.arange(n_people), counts)
    n = len(member)
    shared = world.centre + _left(world.person, (n_people, CLASSES), rng)[member] + _left(world.case, (n, CLASSES), rng)
    easy = rng.random((n, CLASSES))
    sides = []
    for mended in (0.0, world.mended):
        own = rng.normal(0, world.own_person, (n_people, CLASSES))[member]
        noise = rng.normal(0, world.own_case, (world.seeds, n, CLASSES))
        seed = rng.normal(0, world.seed, (world.seeds, 1, 1)) if world.seed else 0.0
        # What one model misses the other is likely to miss: half of the chance lies in the case.
        chance = (easy + rng.random((world.seeds, n, CLASSES))) / 2
        lost = chance < np.sqrt(world.missed / 2) if world.missed else np.zeros_like(noise, dtype=bool)
        lost &= rng.random(lost.shape) >= mended
        sides.append(np.where(lost, 0.0, expit(shared + own + noise + seed)))
    return sides[0], sides[1], [f"p{k:03d}" for k in member]


def simulate(world: World, n_people: int, simulations: int, *, seed: int, bca: bool = False) -> Rates:
    """Compare so many times, as `compare` does: the classes and their mean are the family."""
    rng = np.random.default_rng((seed, n_people))
    truth = _truth(world)
    shown = test = covered = held = 0
    for _ in range(simulations):
        reference, candidate, groups = draw(world, n_people, rng)
        columns = [[k] for k in range(CLASSES)] + [list(range(CLASSES))]
        rows = [paired_difference(reference[:, :, c], candidate[:, :, c], groups) for c in columns]
        below = holm([row.p for row in rows]) < ALPHA
        apart = [row.interval.low > 0 or row.interval.high < 0 for row in rows]
        shown += bool(np.any(below & apart))
        test += bool(np.any(below))
        covered += sum(row.interval.low <= truth <= row.interval.high for row in rows)
        if bca:
            low, high = _bca((candidate - reference).mean(axis=0)[:, :1], groups, rng)
            held += low <= truth <= high
    share = held / simulations if bca else float("nan")
    return Rates(shown / simulations, test / simulations, covered / (simulations * (CLASSES + 1)), share)


def report(simulations: Sequence[int], *, seed: int, bca: bool, progress: Callable[[str], None]) -> str:
    """The table, in Markdown."""
    lines = [
        "| world | people | simulations | a difference shown | Holm's p below 5 % | interval holds the truth |"
        + (" BCa holds it |" if bca else ""),
        "|---|---|---|---|---|---|" + ("---|" if bca else ""),
    ]
    for world in WORLDS:
        for n_people in PEOPLE:
            for count in simulations:
                progress(f"{world.name}, {n_people} people, {count} simulations")
                rates = simulate(world, n_people, count, seed=seed, bca=bca)
                cells = [f"{rates.shown:.1%}", f"{rates.test:.1%}", f"{rates.coverage:.1%}"]
                cells += [f"{rates.bca:.1%}"] if bca else []
                lines.append(f"| {world.name} | {n_people} | {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.null_comparison", description="Errors of `compare`.")
    parser.add_argument("--simulations", nargs="+", type=int, default=list(SIMULATIONS), help="comparisons a line")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bca", action="store_true", help="BCa bootstrap intervals beside it, at 200 simulations")
    asked = parser.parse_args(arguments)
    print(report(asked.simulations, seed=asked.seed, bca=asked.bca, progress=lambda s: print(s, file=sys.stderr)))
    return 0


def _left(spread: float, shape: tuple[int, ...], rng: np.random.Generator) -> Values:
    """Centred, of standard deviation `spread`, with a long tail to the left (skewness -1)."""
    return spread * (4.0 - rng.gamma(4.0, 1.0, shape)) / 2.0


def _truth(world: World) -> float:
    """The true difference of the means: 0 of equal models, else by a large draw."""
    if not world.mended:
        return 0.0
    reference, candidate, _ = draw(world, 400_000, np.random.default_rng(1))
    return float((candidate - reference).mean())


def _bca(differences: Values, groups: Sequence[str], rng: np.random.Generator) -> tuple[float, float]:
    """BCa bootstrap interval of the mean over groups."""
    from scipy.stats import bootstrap

    data = (group_means(differences, groups),)
    interval = bootstrap(data, np.mean, n_resamples=1999, method="BCa", rng=rng).confidence_interval
    return float(interval.low), float(interval.high)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

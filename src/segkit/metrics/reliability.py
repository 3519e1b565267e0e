r"""Whether what is predicted with probability 0.8 is right eight times of ten, one class against the rest.

The voxels are sorted by the probability p of the class into 15 bins of equal width. With n_b voxels in bin b, among
them h_b of the class, and s_b the sum of their probabilities,

    expected calibration error = sum_b | s_b - h_b | / n,    Brier score = mean (p - y)^2

A table of many cases is the mean of theirs, so that each weighs the same whatever its size. The error of a single case
holds chance as well, above all where its region has few voxels; that of the table of all cases hardly any, but it lets
one case's confidence make up for another's doubt. Both are reported.

Reference: Guo et al., On calibration of modern neural networks, ICML 2017; Brier, Monthly Weather Review 1950.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Sums over voxels (or shares of them, in a mean of cases).

    Args:
        count: Voxels of each bin.
        probability: Sum of the class's probability over them.
        hits: How many of them are of the class.
        squares: Sum of (p - y)^2 over all.
    """

    count: Float[np.ndarray, " B"]
    probability: Float[np.ndarray, " B"]
    hits: Float[np.ndarray, " B"]
    squares: float

    def __add__(self, other: "Reliability") -> "Reliability":
        """The table of the voxels of both."""
        return Reliability(
            self.count + other.count,
            self.probability + other.probability,
            self.hits + other.hits,
            self.squares + other.squares,
        )

    @property
    def n(self) -> float:
        """Voxels; 1 in a mean of cases."""
        return float(self.count.sum())

    @property
    def ece(self) -> float:
        """Expected calibration error; NaN without voxels."""
        return float(np.abs(self.probability - self.hits).sum() / self.n) if self.n else float("nan")

    @property
    def brier(self) -> float:
        """Mean squared distance of probability and truth; NaN without voxels."""
        return self.squares / self.n if self.n else float("nan")

    def scaled(self, factor: float) -> "Reliability":
        """Every sum times a factor."""
        return Reliability(self.count * factor, self.probability * factor, self.hits * factor, self.squares * factor)

    def rows(self) -> list[dict[str, float]]:
        """Share of the voxels, mean probability and frequency of the class in each bin that has any."""
        return [
            {"share": float(c) / self.n, "probability": float(p) / float(c), "frequency": float(h) / float(c)}
            for c, p, h in zip(self.count, self.probability, self.hits, strict=True)
            if c > 0
        ]


def reliability(
    probability: Float[np.ndarray, " V"], truth: Bool[np.ndarray, " V"], *, bins: int = BINS
) -> Reliability:
    """The table of some voxels.

    Args:
        probability: Of the class, 0 to 1. Bin b holds [b, b + 1) / bins, the last one 1 as well.
        truth: Whether the voxel is of the class.
        bins: How many.
    """
    p = probability.astype(np.float64)
    index = np.minimum((p * bins).astype(np.int64), bins - 1)
    return Reliability(
        count=np.bincount(index, minlength=bins).astype(np.float64),
        probability=np.bincount(index, weights=p, minlength=bins).astype(np.float64),
        hits=np.bincount(index[truth], minlength=bins).astype(np.float64),
        squares=float(np.square(p - truth).sum()),
    )


def no_voxels(*, bins: int = BINS) -> Reliability:
    """The table of no voxel: what a sum starts from."""
    return Reliability(np.zeros(bins), np.zeros(bins), np.zeros(bins), 0.0)


def mean_reliability(tables: Sequence[Reliability]) -> Reliability:
    """The mean of cases, each weighing the same; those without voxels are left out."""
    filled = [table.scaled(1 / table.n) for table in tables if table.n]
    return sum((table.scaled(1 / len(filled)) for table in filled), start=no_voxels())

r"""One number that says how sure a network may be: softmax(z / T), T fitted on cases it was not trained on.

The mean negative log-likelihood of a voxel with logits z and class y is, with beta = 1 / T,

    f(beta) = ln sum_k exp(beta z_k) - beta z_y

a convex function of beta: its slope is E[z] - z_y and its curvature the variance of z, both under softmax(beta z). A
mean over voxels and cases is convex too, and strictly so as soon as one voxel has two different logits: there is one
minimum, and the slope changes its sign once, over beta and over ln T alike.

What a case has to say is kept as value, slope and curvature over ln T at 33 nodes between T = 0.1 and T = 10. The
voxels are seen once and can be forgotten, whatever their number. Between two nodes the polynomial of degree five
through value, slope and curvature of both stands for the mean; it misses it by less than 1e-7 of a nat.

Reference: Guo et al., On calibration of modern neural networks, ICML 2017.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.interpolate import BPoly
from scipy.optimize import brentq

from segkit.errors import DataError
from segkit.metrics.uncertainty import Interval, mean_interval

RANGE = 10.0
"""T is looked for between 1 / RANGE and RANGE."""
NODES: Float[np.ndarray, " J"] = np.linspace(-math.log(RANGE), math.log(RANGE), 33)
"""ln T; the middle one is T = 1."""
_CHUNK_VALUES = 1_000_000


@dataclass(frozen=True)
class TemperatureCurve:
    """Sums over voxels of the negative log-likelihood and of its derivatives over ln T, at each of `NODES`.

    Args:
        nll: Values, nats.
        slope: First derivatives.
        curvature: Second derivatives.
        n: Voxels.
    """

    nll: Float[np.ndarray, " J"]
    slope: Float[np.ndarray, " J"]
    curvature: Float[np.ndarray, " J"]
    n: int

    def __add__(self, other: "TemperatureCurve") -> "TemperatureCurve":
        """Curve of the voxels of both."""
        return TemperatureCurve(
            self.nll + other.nll, self.slope + other.slope, self.curvature + other.curvature, self.n + other.n
        )

    def mean(self) -> Float[np.ndarray, "J 3"]:
        """Value, slope and curvature a voxel."""
        return np.stack([self.nll, self.slope, self.curvature], axis=1) / self.n


class TemperatureFit(NamedTuple):
    """A fitted temperature.

    Args:
        temperature: T with a 95 % interval by group, n cases and groups.
        nll_before: Mean over the cases at T = 1, nats a voxel.
        nll_after: The same at the fitted T.
    """

    temperature: Interval
    nll_before: float
    nll_after: float


def no_voxels() -> TemperatureCurve:
    """The curve of no voxel: what a sum starts from."""
    return TemperatureCurve(np.zeros(len(NODES)), np.zeros(len(NODES)), np.zeros(len(NODES)), 0)


def temperature_curve(logits: Float[np.ndarray, "K V"], label: Int[np.ndarray, " V"]) -> TemperatureCurve:
    r"""What voxels say of the temperature.

    With p = softmax(z / T), m = sum_k p_k z_k and v = sum_k p_k z_k^2 - m^2, a voxel adds

        value ln sum_k exp(z_k / T) - z_y / T,    slope -(m - z_y) / T,    curvature (m - z_y) / T + v / T^2

    Args:
        logits: (K, V), any floating type; computed in it, summed in float64.
        label: Class of each voxel, 0 ... K-1.
    """
    total = no_voxels()
    step = max(1, _CHUNK_VALUES // logits.shape[0])
    for start in range(0, logits.shape[1], step):
        total += _curve_of_chunk(logits[:, start : start + step], label[start : start + step])
    return total


def fit_temperature(curves: Sequence[TemperatureCurve], groups: Sequence[str]) -> TemperatureFit:
    """The temperature of the smallest negative log-likelihood, each case weighing the same.

    Its interval is that of a mean by group: near the minimum each case pulls ln T by -slope / (mean curvature), and
    these pulls have mean 0.

    Args:
        curves: One a case, none of them empty.
        groups: Group (person) of each case.

    Raises:
        ValueError: No case, or one without voxels.
        DataError: The likelihood still rises at 1 / RANGE or at RANGE.
    """
    if not curves or min(curve.n for curve in curves) == 0:
        raise ValueError("a temperature is fitted on cases that have voxels")
    tables = [curve.mean() for curve in curves]
    mean = np.mean(tables, axis=0)
    node = int(np.searchsorted(mean[:, 1] > 0, True))
    if node in (0, len(NODES)):
        low = node == 0
        raise DataError(
            f"no temperature between {1 / RANGE:g} and {RANGE:g} fits",
            why="in these cases the model is never wrong: the likelihood rises as T goes to 0"
            if low
            else "in these cases the logits say nothing of the classes: the likelihood rises as T grows",
            mend="look at the labels of the fitting cases" if low else "train longer, or look at the labels",
        )
    span = slice(node - 1, node + 1)
    nll = BPoly.from_derivatives(NODES[span], mean[span])
    log_t = _root(nll.derivative(), float(NODES[node - 1]), float(NODES[node]))
    slopes = [float(BPoly.from_derivatives(NODES[span], table[span]).derivative()(log_t)) for table in tables]
    curvature = float(nll.derivative(2)(log_t))
    found = mean_interval([log_t - slope / curvature for slope in slopes], groups)
    interval = Interval(math.exp(log_t), math.exp(found.low), math.exp(found.high), found.n, found.n_groups)
    return TemperatureFit(interval, float(mean[len(NODES) // 2, 0]), float(nll(log_t)))


def softmax(logits: Float[np.ndarray, "K V"], temperature: float = 1.0) -> Float[np.ndarray, "K V"]:
    """Probabilities of z / T over the first axis; their largest class is that of the logits, whatever T > 0 is.

    Raises:
        ValueError: T is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"a temperature is positive, not {temperature}")
    scaled = (logits - logits.max(axis=0)) / np.asarray(temperature, dtype=logits.dtype)
    np.exp(scaled, out=scaled)
    scaled /= scaled.sum(axis=0)
    result: np.ndarray = scaled
    return result


def mean_nll(logits: Float[np.ndarray, "K V"], label: Int[np.ndarray, " V"], temperature: float = 1.0) -> float:
    """Mean over voxels of -ln softmax(z / T)_y, nats; NaN without voxels."""
    if not label.size:
        return float("nan")
    z = logits - logits.max(axis=0)
    own = np.take_along_axis(z, label[None].astype(np.int64), axis=0)[0]
    each = np.log(np.exp(z / np.asarray(temperature, dtype=z.dtype)).sum(axis=0)) - own / temperature
    return float(each.mean(dtype=np.float64))


def _root(slope: Callable[[float], float], low: float, high: float) -> float:
    """Where the slope passes 0; an end, where rounding has put it a digit beyond."""
    if slope(low) >= 0:
        return low
    return high if slope(high) <= 0 else float(brentq(slope, low, high, xtol=1e-12))


def _curve_of_chunk(logits: Float[np.ndarray, "K V"], label: Int[np.ndarray, " V"]) -> TemperatureCurve:
    z = logits - logits.max(axis=0)  # of all logits the same may be taken; the largest exponential is then 1
    own = np.take_along_axis(z, label[None].astype(np.int64), axis=0)[0]
    rows = []
    for log_t in NODES:
        beta = float(np.exp(-log_t))
        weight = np.exp(beta * z)
        total = weight.sum(axis=0)
        weight *= z
        first = weight.sum(axis=0) / total
        weight *= z
        second = weight.sum(axis=0) / total
        nll = float((np.log(total) - beta * own).sum(dtype=np.float64))
        pull = float((first - own).sum(dtype=np.float64))
        spread = float((second - first * first).sum(dtype=np.float64))
        rows.append((nll, -beta * pull, beta * pull + beta * beta * spread))
    nll_, slope, curvature = np.array(rows, dtype=np.float64).T
    return TemperatureCurve(nll_, slope, curvature, int(label.size))

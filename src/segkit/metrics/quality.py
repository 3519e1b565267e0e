r"""How good a mask probably is, from the probabilities alone: an estimate of its Dice before anybody has drawn a truth.

If voxel v is of class k with probability p_k(v), the mask P_k shares sum_{v in P_k} p_k(v) voxels with the truth on
average, and the truth has sum_v p_k(v). The ratio of these means stands for the mean of the ratio:

    estimate_k = 2 sum_{v in P_k} p_k(v) / ( |P_k| + sum_v p_k(v) )

It is worth as much as the probabilities: under a temperature that is too low every mask looks good.

Reference: Borges, Pacheco and Silva, Soft Dice Confidence, arXiv 2402.10665.
"""

import numpy as np
from jaxtyping import Float


def expected_dice(
    inside: Float[np.ndarray, " K"], predicted: Float[np.ndarray, " K"], expected: Float[np.ndarray, " K"]
) -> Float[np.ndarray, " K"]:
    """The estimate of each class; NaN where the class counts for nothing.

    A class counts where it is predicted, or where at least one voxel of it is expected: nothing predicted of a class
    that is probably there is 0, as its Dice would be.

    Args:
        inside: Sum of the class's probability over what is predicted as the class.
        predicted: Voxels predicted as the class.
        expected: Sum of the class's probability over all voxels.
    """
    counts = (predicted > 0) | (expected >= 1)
    total = predicted + expected
    ratio = np.divide(2 * inside, total, out=np.zeros_like(total), where=total > 0)
    return np.where(counts, ratio, np.nan)


def mean_of_defined(values: Float[np.ndarray, " K"]) -> float:
    """Mean over the classes that count; NaN where none does."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")

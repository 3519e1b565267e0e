"""Made-up predictions: an organ with islands that are right or wrong, and cases without the organ."""

import numpy as np

from segkit.evaluation.prediction_regions import CaseFacts, regions_of
from segkit.types import Labels

ORGAN = Labels(("background", "organ"), (0, 1))
SHAPE = (36, 36)
PLACES = [(row, column) for row in (18, 24, 30) for column in (2, 8, 14, 20, 26)]


def masks(rng, *, islands, right, healthy=0.0, alarms=0.0):
    """Prediction and reference of one case.

    Args:
        rng: Draws it.
        islands: Mean number of islands beside the organ.
        right: Chance that an island is in the reference too; by an island of the same size Dice gains or loses alike.
        healthy: Chance that the case has no organ.
        alarms: Chance that islands are predicted there all the same.
    """
    prediction, reference = np.zeros(SHAPE, dtype=np.int16), np.zeros(SHAPE, dtype=np.int16)
    sick = rng.random() >= healthy
    if sick:
        size = int(rng.integers(8, 13))
        prediction[2 : 2 + size, 2 : 2 + size] = 1
        reference[2 + int(rng.integers(0, 2)) : 2 + size, 2 : 2 + size] = 1
    count = rng.poisson(islands) if sick else rng.poisson(2) * int(rng.random() < alarms)
    for place in rng.permutation(len(PLACES))[:count]:
        row, column = PLACES[place]
        height, width = rng.integers(1, 5, 2)
        island = (slice(row, row + height), slice(column, column + width))
        prediction[island] = 1
        reference[island] = sick and rng.random() < right
    return prediction, reference


def data_set(seed, cases, *, people=None, spacing=(1.0, 1.0), **world):
    """Regions of so many cases, dealt to so many people."""
    rng = np.random.default_rng(seed)
    people = people or cases
    return [
        regions_of(*masks(rng, **world), CaseFacts(f"c{k:03d}", f"p{k % people:03d}", f"h{k}", spacing), num_classes=2)
        for k in range(cases)
    ]

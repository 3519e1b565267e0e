"""The worst cases: in which order they stand, and that their masks come back from little memory as they went in."""

from math import nan
from pathlib import Path

import numpy as np

from segkit.types import Case
from segkit.workflows.evaluate_cases import Worst

NOTHING = np.zeros((2, 3), np.int16)


def worst(name, score, prediction=NOTHING):
    return Worst.of(Case(name, (Path(f"{name}.nii.gz"),), None, name), prediction, score)


def test_worst_first_and_healthy_cases_last():
    found = sorted([worst("b", 0.5), worst("healthy", nan), worst("c", 0.1), worst("a", 0.5)], key=Worst.rank)
    assert [one.case.case_id for one in found] == ["c", "a", "b", "healthy"]


def test_a_mask_comes_back_from_less_memory():
    mask = np.zeros((40, 50, 60), np.int16)
    mask[10:20, 5:40, 30:33] = 300
    mask[0, 0, 0] = -1
    for laid in (mask, np.asfortranarray(mask), mask[:, ::-1]):
        one = worst("a", 0.5, laid)
        np.testing.assert_array_equal(one.prediction, laid)
        assert len(one.packed) < mask.nbytes / 100

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.metrics.overlap import dice, iou, overlap, overlap_by_class, precision, recall
from segkit.ops.confusion import Counts

counts = st.integers(min_value=0, max_value=10**6)


def test_values_by_hand():
    assert dice(6, 2, 4) == pytest.approx(12 / 18)
    assert iou(6, 2, 4) == pytest.approx(6 / 12)
    assert precision(6, 2, 4) == pytest.approx(6 / 8)
    assert recall(6, 2, 4) == pytest.approx(6 / 10)


def test_silence_is_zero_in_all_four():
    found = overlap(0, 0, 5)
    assert (found.dice, found.iou, found.precision, found.recall) == (0, 0, 0, 0)


@pytest.mark.parametrize("false_positives", [0, 3])
def test_without_reference_nothing_is_defined(false_positives):
    found = overlap(0, false_positives, 0)
    assert np.isnan([found.dice, found.iou, found.precision, found.recall]).all()


@settings(max_examples=50, deadline=None, derandomize=True)
@given(tp=counts, fp=counts, fn=counts)
def test_identities(tp, fp, fn):
    found = overlap(tp, fp, fn)
    if tp + fn == 0:
        return
    assert found.iou == pytest.approx(found.dice / (2 - found.dice))
    if tp:
        assert found.dice == pytest.approx(2 / (1 / found.precision + 1 / found.recall))
    assert 0 <= found.iou <= found.dice <= 1


def test_by_class_agrees_with_the_scalars():
    k = Counts(
        tp=torch.tensor([9, 6, 0]), fp=torch.tensor([1, 2, 0]), fn=torch.tensor([0, 4, 3]), tn=torch.zeros(3).long()
    )
    found = overlap_by_class(k)
    np.testing.assert_allclose(found.dice, [18 / 19, 12 / 18, 0])
    assert found.dice.dtype == np.float64

import numpy as np
import pytest
import torch

from segkit.errors import DataError
from segkit.ops.confusion import confusion


@pytest.mark.parametrize("shape", [(9, 11), (5, 6, 7)])
def test_counts_are_what_the_definition_says(shape: tuple[int, ...]):
    torch.manual_seed(0)
    prediction, reference = torch.randint(0, 4, shape), torch.randint(-1, 4, shape)
    counts = confusion(prediction, reference, 4)
    known = reference >= 0
    for k in range(4):
        p, r = (prediction == k) & known, (reference == k) & known
        assert counts.tp[k] == (p & r).sum()
        assert counts.fp[k] == (p & ~r).sum()
        assert counts.fn[k] == (~p & r).sum()
        assert counts.tn[k] == (~p & ~r & known).sum()
    total = counts.tp + counts.fp + counts.fn + counts.tn
    assert (total == known.sum()).all()
    assert counts.tp.dtype == torch.int64


def test_ignored_voxels_do_not_count_whatever_was_predicted():
    reference = torch.tensor([[-1, -1, 1, 0]])
    first = confusion(torch.tensor([[0, 1, 1, 0]]), reference, 2)
    second = confusion(torch.tensor([[1, 0, 1, 0]]), reference, 2)
    for name in ("tp", "fp", "fn", "tn"):
        assert torch.equal(getattr(first, name), getattr(second, name))


def test_small_integer_types_do_not_overflow():
    prediction = torch.full((20, 20), 199, dtype=torch.uint8)
    reference = torch.full((20, 20), 199, dtype=torch.int16)
    assert confusion(prediction, reference, 200).tp[199] == 400


def test_sum_over_parts_is_the_whole():
    torch.manual_seed(1)
    prediction, reference = torch.randint(0, 3, (8, 8, 8)), torch.randint(-1, 3, (8, 8, 8))
    whole = confusion(prediction, reference, 3)
    parts = confusion(prediction[:3], reference[:3], 3) + confusion(prediction[3:], reference[3:], 3)
    for name in ("tp", "fp", "fn", "tn"):
        assert torch.equal(getattr(whole, name), getattr(parts, name))


def test_everything_ignored_and_nothing_at_all():
    assert confusion(torch.zeros(4, 4, dtype=torch.long), torch.full((4, 4), -1), 2).tn.sum() == 0
    empty = torch.zeros((0, 4), dtype=torch.long)
    assert confusion(empty, empty, 2).tp.tolist() == [0, 0]


@pytest.mark.parametrize(("prediction", "reference"), [(3, 0), (-1, 0), (0, 3), (0, -2)])
def test_a_value_that_is_no_class_is_refused(prediction: int, reference: int):
    with pytest.raises(DataError, match="not a class"):
        confusion(torch.full((2, 2), prediction), torch.full((2, 2), reference), 3)


def test_agrees_with_a_histogram_of_pairs():
    rng = np.random.default_rng(0)
    p, r = rng.integers(0, 5, 1000), rng.integers(0, 5, 1000)
    matrix = np.histogram2d(r, p, bins=(5, 5), range=((0, 5), (0, 5)))[0]
    counts = confusion(torch.from_numpy(p), torch.from_numpy(r), 5)
    np.testing.assert_array_equal(counts.tp, np.diag(matrix))
    np.testing.assert_array_equal(counts.fp + counts.tp, matrix.sum(0))
    np.testing.assert_array_equal(counts.fn + counts.tp, matrix.sum(1))

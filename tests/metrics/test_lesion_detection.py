"""Every value by hand: splits, merges, touching, one-voxel lesions, empty masks, borders; bounds on random ones."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.metrics.lesion_detection import PANOPTIC_IOU, are_lesions, overlaps, share_by_size


def line(*runs, length=40):
    """A 1-voxel-high picture with (start, stop, id) runs."""
    ids = np.zeros((1, length), dtype=np.int32)
    for start, stop, name in runs:
        ids[0, start:stop] = name
    return ids


# name, reference, prediction, min_iou, (tp, fp, fn, splits, merges), PQ
BY_HAND = [
    ("equal", [(0, 4, 1), (10, 14, 2)], [(0, 4, 5), (10, 14, 9)], 0.1, (2, 0, 0, 0, 0), 1.0),
    ("missed", [(0, 4, 1)], [], 0.1, (0, 0, 1, 0, 0), 0.0),
    ("invented", [], [(0, 4, 1)], 0.1, (0, 1, 0, 0, 0), math.nan),
    ("neither", [], [], 0.1, (0, 0, 0, 0, 0), math.nan),
    # 6 and 4 of 10: the larger part is found, the other invented. PQ: 0.6 / (1 + 1/2).
    ("split", [(0, 10, 1)], [(0, 6, 1), (6, 10, 2)], 0.1, (1, 1, 0, 1, 0), 0.4),
    # 6 and 4 in one of 10. PQ: 0.6 / (1 + 1/2).
    ("merge", [(0, 6, 1), (6, 10, 2)], [(0, 10, 1)], 0.1, (1, 0, 1, 0, 1), 0.4),
    # The border moved by one between two that touch: 5 / 6 and 4 / 5. PQ: their mean.
    ("touching", [(0, 6, 1), (6, 10, 2)], [(0, 5, 1), (5, 10, 2)], 0.1, (2, 0, 0, 1, 1), (5 / 6 + 4 / 5) / 2),
    ("one voxel", [(0, 1, 1)], [(0, 1, 3)], 0.1, (1, 0, 0, 0, 0), 1.0),
    ("at both borders", [(0, 2, 1), (38, 40, 2)], [(0, 2, 1)], 0.1, (1, 0, 1, 0, 0), 2 / 3),
    # One voxel of 20 is shared.
    ("below the threshold", [(0, 10, 1)], [(9, 20, 1)], 0.1, (0, 1, 1, 0, 0), 0.0),
    ("any voxel", [(0, 10, 1)], [(9, 20, 1)], 0.0, (1, 0, 0, 0, 0), 0.0),
]


@pytest.mark.parametrize(
    ("reference", "prediction", "min_iou", "counts", "quality"),
    [case[1:] for case in BY_HAND],
    ids=[case[0] for case in BY_HAND],
)
def test_by_hand(reference, prediction, min_iou, counts, quality):
    table = overlaps(line(*reference), line(*prediction))
    found = table.matched(min_iou)
    assert (found.tp, found.fp, found.fn, table.splits, table.merges) == counts
    assert table.matched(PANOPTIC_IOU).panoptic_quality == pytest.approx(quality, nan_ok=True)


def test_lesions_one_by_one():
    reference = line((0, 4, 7), (10, 13, 2), (20, 21, 4))  # by id: 2 (3 voxels), 4 (1), 7 (4)
    prediction = line((1, 4, 1), (20, 22, 3), (30, 35, 2))  # by id: 1 (3), 2 (5), 3 (2)
    table = overlaps(reference, prediction)
    assert (table.reference_voxels, table.prediction_voxels) == ((3, 1, 4), (3, 5, 2))
    found = table.matched(0.1)
    assert found.found == (False, True, True)
    assert found.true == (True, False, True)
    assert found.invented_voxels == 5
    assert found.segmentation_quality == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert found.recognition_quality == pytest.approx(2 / 3)


def test_recall_by_size_by_hand():
    sizes, hits = [0.5, 1.0, 3.0, 10.0, 12.0], [True, False, True, True, False]
    assert share_by_size(sizes, hits, [1.0, 10.0]) == ((1, 2), (1, 2))
    assert share_by_size([], [], [0.0]) == ((0, 0),)


def random_lesions(seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 6, (2, 5, 6)) * (rng.random((2, 5, 6)) < 0.5)


two_masks = st.integers(0, 2**32 - 1).map(random_lesions)


@settings(max_examples=100, deadline=None)
@given(two_masks, st.floats(0.01, 1.0))
def test_equals_the_slow_definition(pair, min_iou):
    """Again and again the pair with the largest overlap, of lesions that are both still free."""
    reference, prediction = pair
    left = set(np.unique(reference[reference > 0]).tolist())
    right = set(np.unique(prediction[prediction > 0]).tolist())
    missed, invented, total = len(left), len(right), 0.0
    while True:
        best = (0, 0.0, 0, 0)
        for r in left:
            for p in right:
                one, other = reference == r, prediction == p
                shared = int((one & other).sum())
                iou = shared / int((one | other).sum())
                if shared and iou >= min_iou:
                    best = max(best, (shared, iou, -r, -p))
        if not best[0]:
            break
        left.discard(-best[2])
        right.discard(-best[3])
        missed, invented, total = missed - 1, invented - 1, total + best[1]
    found = overlaps(reference, prediction).matched(min_iou)
    assert (found.fp, found.fn) == (invented, missed)
    assert sum(pair.iou for pair in found.pairs) == pytest.approx(total)


@settings(max_examples=100, deadline=None)
@given(two_masks)
def test_sides_change_places(pair):
    there, back = overlaps(*pair), overlaps(*pair[::-1])
    assert (there.splits, there.merges) == (back.merges, back.splits)
    one, other = there.matched(PANOPTIC_IOU), back.matched(PANOPTIC_IOU)
    assert (one.tp, one.fp, one.fn) == (other.tp, other.fn, other.fp)


@settings(max_examples=60, deadline=None)
@given(two_masks)
def test_taking_a_found_lesion_away_never_improves(pair):
    """PQ = S / D becomes (S - u) / (D - 1/2), which is less as u >= 1/2 >= PQ / 2."""
    reference, prediction = pair
    table = overlaps(reference, prediction)
    names = np.unique(prediction[prediction > 0])
    before = table.matched(PANOPTIC_IOU)
    for name in names[np.array(before.true, dtype=bool)]:
        after = overlaps(reference, np.where(prediction == name, 0, prediction)).matched(PANOPTIC_IOU)
        assert after.tp <= before.tp
        assert after.panoptic_quality <= before.panoptic_quality + 1e-12


def test_refusals():
    with pytest.raises(ValueError, match="min_iou"):
        overlaps(line(), line()).matched(1.5)
    with pytest.raises(ValueError, match="shape"):
        overlaps(np.zeros((2, 3), int), np.zeros((3, 2), int))


@pytest.mark.parametrize(
    ("pieces", "cases", "expected"), [(10, 10, False), (14, 10, False), (15, 10, True), (0, 0, False)]
)
def test_lesions_are_several_a_case_and_organs_are_one(pieces, cases, expected):
    assert are_lesions(pieces, cases) is expected

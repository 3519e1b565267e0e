"""Surfaces, volumes and lesions of one case, every value by hand."""

import math

import numpy as np
import pytest

from segkit.errors import DataError, UsageError
from segkit.evaluation import DetailSettings, detail_case
from segkit.metrics.lesion import LesionSettings
from segkit.types import Labels

ONE = Labels(names=("background", "lesion"), ids=(0, 1))
TWO = Labels(names=("background", "liver", "tumour"), ids=(0, 1, 2))


def row(*runs, length=40):
    """A picture of three rows whose middle one holds (start, stop) runs."""
    mask = np.zeros((3, length), dtype=np.int16)
    for start, stop in runs:
        mask[1, start:stop] = 1
    return mask


def measured(prediction, reference, *, spacing=(1.0, 1.0), labels=ONE, instances=None, guessed=None, **settings):
    return detail_case(
        prediction,
        reference,
        case_id="a",
        group="p",
        spacing=spacing,
        labels=labels,
        settings=DetailSettings(**settings),
        instances=instances,
        predicted_instances=guessed,
    )


# reference, prediction, (tp, fp, fn) at IoU >= 0.1, splits, merges, PQ
TABLE = {
    "found": (row((0, 8)), row((0, 8)), (1, 0, 0), 0, 0, 1.0),
    "split, one part the larger": (row((0, 10)), row((0, 6), (7, 10)), (1, 1, 0), 1, 0, 0.6 / 1.5),
    "merge of two": (row((0, 6), (7, 10)), row((0, 10)), (1, 0, 1), 0, 1, 0.6 / 1.5),
    "they touch and share nothing": (row((0, 5)), row((5, 10)), (0, 1, 1), 0, 0, 0.0),
    "one voxel found": (row((3, 4)), row((3, 4)), (1, 0, 0), 0, 0, 1.0),
    "one voxel missed": (row((3, 4)), row(), (0, 0, 1), 0, 0, 0.0),
    "one voxel invented": (row(), row((3, 4)), (0, 1, 0), 0, 0, math.nan),
    "neither": (row(), row(), (0, 0, 0), 0, 0, math.nan),
    "at both borders": (row((0, 2), (38, 40)), row((0, 2), (38, 40)), (2, 0, 0), 0, 0, 1.0),
    "matched, but below one half": (row((0, 10)), row((0, 3)), (1, 0, 0), 0, 0, 0.0),
}


@pytest.mark.parametrize("name", TABLE)
def test_lesions_by_hand(name):
    reference, prediction, counts, splits, merges, quality = TABLE[name]
    (found,) = measured(prediction, reference)
    assert (found.detection.tp, found.detection.fp, found.detection.fn) == counts
    assert (found.lesions.splits, found.lesions.merges) == (splits, merges)
    assert found.panoptic.panoptic_quality == pytest.approx(quality, nan_ok=True)
    assert (found.reference_voxels, found.prediction_voxels) == (int(reference.sum()), int(prediction.sum()))


def test_small_lesions_are_ignored_on_both_sides_but_their_voxels_stay():
    reference, prediction = row((0, 8), (12, 13)), row((0, 8), (20, 22))
    (found,) = measured(prediction, reference, spacing=(1.0, 0.5), lesion=LesionSettings(min_mm3=1.5))
    assert (found.detection.tp, found.detection.fp, found.detection.fn) == (1, 0, 0)
    assert (found.reference_voxels, found.prediction_voxels) == (9, 10)
    assert found.component_dice == 1.0


def test_a_rod_that_is_too_long_by_two_voxels():
    """Three more elements a side reach 2 voxels further; the farthest lies 2 voxels of 0.5 mm off."""
    (found,) = measured(row((10, 22)), row((10, 20)), spacing=(2.0, 0.5), tolerance_mm=0.25)
    assert found.surface.hd == pytest.approx(1.0)
    assert 0 < found.surface.nsd < 1
    assert found.volume_similarity == pytest.approx(1 - 2 / 22)
    assert found.voxel_size == 1.0
    assert found.diagonal == pytest.approx(math.hypot(3 * 2.0, 40 * 0.5))


@pytest.mark.parametrize(
    ("reference", "prediction", "found"), [(row((1, 4)), row(), "missed"), (row(), row((1, 4)), "invented")]
)
def test_one_side_empty_has_no_finite_distance_and_the_diagonal_stands_for_it(reference, prediction, found):
    (detail,) = measured(prediction, reference)
    assert detail.surface.found == found
    assert (detail.surface.hd, detail.surface.assd, detail.surface.nsd) == (math.inf, math.inf, 0.0)
    assert detail.bounded == (detail.diagonal, detail.diagonal)


def test_the_box_changes_nothing():
    """The same structures in a larger image, and moved: all but the diagonal stays."""
    rng = np.random.default_rng(0)
    small = {name: rng.integers(0, 3, (7, 9, 6)).astype(np.int16) for name in ("reference", "prediction")}
    large = {name: np.zeros((20, 21, 22), dtype=np.int16) for name in small}
    for name, array in small.items():
        large[name][5:12, 8:17, 3:9] = array
    spacing = (0.7, 1.0, 2.5)
    for a, b in zip(
        measured(**small, spacing=spacing, labels=TWO), measured(**large, spacing=spacing, labels=TWO), strict=True
    ):
        assert a.surface == b.surface
        assert a.detection == b.detection
        assert a.component_dice == b.component_dice
        assert a.diagonal < b.diagonal


def test_what_nobody_annotated_leaves_both_sides():
    reference, prediction = row((0, 8)), row((0, 8), (20, 30))
    reference[:, 18:] = -1
    (found,) = measured(prediction, reference)
    assert (found.detection.fp, found.prediction_voxels, found.annotated_voxels) == (0, 8, 3 * 18)
    assert found.surface.hd == 0.0


def test_a_tolerance_for_each_class():
    reference = np.zeros((12, 12), dtype=np.int16)
    reference[2:5, 2:10], reference[7:10, 2:10] = 1, 2
    prediction = np.roll(reference, 1, axis=1)
    liver, tumour = measured(prediction, reference, labels=TWO, tolerance_mm=0.5, tolerances={"tumour": 1.0})
    assert liver.surface.nsd < 1
    assert tumour.surface.nsd == 1.0


def test_instances_are_lesions_though_they_touch_and_their_ceiling_says_what_components_lose():
    reference = row((0, 10))
    instances = np.where(reference, np.where(np.arange(40) < 6, 1, 2), 0).astype(np.int32)
    (found,) = measured(reference, reference, instances=instances)
    assert (found.detection.tp, found.detection.fp, found.detection.fn) == (1, 0, 1)
    assert found.ceiling == found.detection  # a perfect mask of one class scores what the reference itself does
    (own,) = measured(reference, reference, instances=instances, guessed=instances)
    assert (own.detection.tp, own.detection.fp, own.detection.fn) == (2, 0, 0)


def test_what_does_not_go_together_is_refused():
    with pytest.raises(DataError, match="shape"):
        measured(row(), row(length=41))
    with pytest.raises(UsageError, match="negative"):
        DetailSettings(tolerance_mm=-1.0)
    with pytest.raises(UsageError, match="rise"):
        DetailSettings(size_edges=(0.0, 10.0, 5.0))
    with pytest.raises(UsageError, match="no class kidney"):
        DetailSettings(tolerances={"kidney": 2.0}).require_known(TWO)

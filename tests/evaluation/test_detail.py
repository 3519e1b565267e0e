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


def measured(
    prediction, reference, *, spacing=(1.0, 1.0), labels=ONE, instances=None, guessed=None, annotated=None, **settings
):
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
        annotated=annotated,
    )


def steps(*runs):
    """One run a line, each beginning where the one above ends: they touch at a corner."""
    mask = row()
    for line, (start, stop) in enumerate(runs):
        mask[line, start:stop] = 1
    return mask


NAN = math.nan
# reference, prediction, (tp, fp, fn) at IoU >= 0.1, (splits, merges), F1, PQ, component Dice
TABLE = {
    "found": (row((0, 8)), row((0, 8)), (1, 0, 0), (0, 0), 1, 1, 1),
    "split, one part the larger": (row((0, 10)), row((0, 6), (7, 10)), (1, 1, 0), (1, 0), 2 / 3, 0.6 / 1.5, 18 / 19),
    # Of the gap one voxel is nearer to the first, one to the second.
    "merge of two": (row((0, 6), (8, 10)), row((0, 10)), (1, 0, 1), (0, 1), 2 / 3, 0.6 / 1.5, (12 / 13 + 4 / 5) / 2),
    "they touch and share nothing": (row((0, 5)), row((5, 10)), (0, 1, 1), (0, 0), 0, 0, 0),
    "two that touch at a corner are one": (steps((0, 4), (4, 8)), steps((0, 4)), (1, 0, 0), (0, 0), 1, 0.5, 8 / 12),
    "one voxel found": (row((3, 4)), row((3, 4)), (1, 0, 0), (0, 0), 1, 1, 1),
    "one voxel found, one beside it": (row((3, 4)), row((3, 5)), (1, 0, 0), (0, 0), 1, 0.5, 2 / 3),
    "one voxel missed": (row((3, 4)), row(), (0, 0, 1), (0, 0), 0, 0, 0),
    "one voxel invented": (row(), row((3, 4)), (0, 1, 0), (0, 0), NAN, NAN, NAN),
    "neither": (row(), row(), (0, 0, 0), (0, 0), NAN, NAN, NAN),
    "at both borders": (row((0, 2), (38, 40)), row((0, 2), (38, 40)), (2, 0, 0), (0, 0), 1, 1, 1),
    "at one border, missed at the other": (row((0, 2), (38, 40)), row((0, 2)), (1, 0, 1), (0, 0), 2 / 3, 2 / 3, 1 / 2),
    "matched, but below one half": (row((0, 10)), row((0, 3)), (1, 0, 0), (0, 0), 1, 0, 6 / 13),
}
# The same, lesions of less than 3 voxels ignored.
FROM_THREE = {
    "too small on both sides": (row((0, 8), (12, 14)), row((0, 8), (20, 22)), (1, 0, 0), (0, 0), 1, 1, 1),
    "just large enough": (row((0, 3)), row((0, 3)), (1, 0, 0), (0, 0), 1, 1, 1),
    "a part too small is no split": (row((0, 8)), row((0, 2), (3, 8)), (1, 0, 0), (0, 0), 1, 5 / 8, 10 / 13),
    "only one too small": (row((3, 5)), row((3, 5)), (0, 0, 0), (0, 0), NAN, NAN, NAN),
    "too small to be found": (row((0, 3)), row((0, 2)), (0, 0, 1), (0, 0), 0, 0, 0),
}


@pytest.mark.parametrize(
    ("line", "smallest"),
    [*((line, 1) for line in TABLE.values()), *((line, 3) for line in FROM_THREE.values())],
    ids=[*TABLE, *FROM_THREE],
)
def test_lesions_by_hand(line, smallest):
    reference, prediction, counts, together, f1, quality, by_component = line
    (found,) = measured(prediction, reference, lesion=LesionSettings(min_voxels=smallest))
    assert (found.detection.tp, found.detection.fp, found.detection.fn) == counts
    assert (found.lesions.splits, found.lesions.merges) == together
    assert found.detection.recognition_quality == pytest.approx(f1, nan_ok=True)
    assert found.panoptic.panoptic_quality == pytest.approx(quality, nan_ok=True)
    assert found.component_dice == pytest.approx(by_component, nan_ok=True)
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


def test_a_class_that_was_not_annotated_is_not_measured_and_changes_no_other():
    rng = np.random.default_rng(1)
    prediction, reference = (rng.integers(0, 3, (7, 9)).astype(np.int16) for _ in range(2))
    whole = measured(prediction, reference, labels=TWO)
    assert measured(prediction, reference, labels=TWO, annotated=frozenset({2})) == whole[1:]
    assert measured(prediction, reference, labels=TWO, annotated=frozenset()) == ()

"""segkit's metrics beside MONAI's (1.6.1): equal where the convention is, and what each other convention makes of it.

docs/metrics_agreement.md has a row for each test that pins a difference.
"""

import math

import numpy as np
import pytest
import torch
from monai.metrics import (
    DiceMetric,
    HausdorffDistanceMetric,
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
    compute_panoptic_quality,
    compute_surface_dice,
)
from tests.reference.agreement_masks import BY_NAME, PAIRS, THICK, MaskPair, box
from tests.reference.border_voxels import border_distances

from segkit.evaluation import (
    CaseResult,
    DetailSettings,
    EvaluationSettings,
    detail_case,
    summarise,
    summarise_details,
)
from segkit.metrics.component_dice import component_dice, mean_component_dice
from segkit.metrics.composite import ClassCounts
from segkit.metrics.lesion_detection import PANOPTIC_IOU, overlaps
from segkit.metrics.overlap import overlap
from segkit.metrics.surface import SurfaceSettings, surface_distances
from segkit.ops.connected_components import connected_components
from segkit.types import Labels

# What MONAI says of empty masks, of its own deprecated argument, and of the device that it counts components on.
pytestmark = [
    pytest.mark.filterwarnings("ignore:the (ground truth|prediction) of class"),
    pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Voronoi computation is running on CPU"),
]

every_pair = pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
full_pairs = pytest.mark.parametrize("pair", [p for p in PAIRS if p.both], ids=lambda pair: pair.name)


def tensors(pair):
    """Prediction and reference, (1, 1, *S)."""
    return [torch.from_numpy(mask)[None, None].float() for mask in (pair.prediction, pair.reference)]


def two_channels(mask):
    return torch.stack([~torch.from_numpy(mask), torch.from_numpy(mask)])[None].float()


def ours(pair, **settings):
    return surface_distances(
        pair.reference, pair.prediction, spacing=pair.spacing, settings=SurfaceSettings(**settings)
    )


def counts(pair):
    r, p = pair.reference, pair.prediction
    return int((r & p).sum()), int((~r & p).sum()), int((r & ~p).sum())


def approx(value):
    return pytest.approx(value, rel=1e-6, abs=1e-6, nan_ok=True)


def instances(mask):
    return connected_components(mask)[0]


# ---------------------------------------------------------------------------------------- voxels


@every_pair
def test_dice_and_iou(pair):
    found = overlap(*counts(pair))
    assert float(found.dice) == approx(float(compute_dice(*tensors(pair))))
    assert float(found.iou) == approx(float(compute_iou(*tensors(pair))))


def test_mean_is_over_cases_then_classes_where_theirs_is_over_classes_then_cases():
    """Dice 1 and 0 in a case with both classes, 0.5 in one with the first only."""
    rows = [[(1, 4, 0, 0), (2, 0, 0, 4)], [(1, 2, 2, 2), (2, 0, 0, 0)]]
    results = [
        CaseResult(name, name, tuple(ClassCounts(name, name, *row) for row in of_case))
        for name, of_case in zip("ab", rows, strict=True)
    ]
    labels = Labels(("background", "one", "two"), (0, 1, 2))
    assert summarise(results, labels, EvaluationSettings()).mean["dice"].mean == ((1 + 0.5) / 2 + 0) / 2
    reference, prediction = torch.zeros(2, 2, 1, 8), torch.zeros(2, 2, 1, 8)
    reference[:, 0, 0, :4], reference[0, 1, 0, 4:] = 1, 1
    prediction[0, 0, 0, :4], prediction[1, 0, 0, 2:6] = 1, 1
    metric = DiceMetric()
    metric(prediction, reference)
    assert float(metric.aggregate()) == ((1 + 0) / 2 + 0.5) / 2


# ---------------------------------------------------------------------------------------- surfaces


@every_pair
def test_surface_dice_by_subvoxels(pair):
    """Areas, border, empty sides: all alike."""
    tolerance = 1.1
    theirs = compute_surface_dice(
        *tensors(pair), class_thresholds=[tolerance], include_background=True, spacing=pair.spacing, use_subvoxels=True
    )
    assert ours(pair, tolerance_mm=tolerance).nsd == approx(float(theirs))


def test_a_distance_of_exactly_the_tolerance_is_right_in_both():
    """A face that moved by 2 voxels of 1 mm."""
    pair = BY_NAME["cube that grew by two"]
    keys = {"include_background": True, "spacing": pair.spacing, "use_subvoxels": True}
    below, at = (float(compute_surface_dice(*tensors(pair), class_thresholds=[t], **keys)) for t in (1.999, 2.0))
    assert (below < 1, at) == (True, 1.0)
    assert (ours(pair, tolerance_mm=1.999).nsd < 1, ours(pair, tolerance_mm=2.0).nsd) == (True, 1.0)


@full_pairs
def test_distances_of_theirs_are_of_border_voxels_that_count_one(pair):
    """HD95: a quantile with interpolation, the larger direction. ASSD: one mean of both directions. NSD by default.

    The rank of that quantile is in single precision: off by some ten-thousandths of the step between two distances.
    """
    distances = border_distances(pair.reference, pair.prediction, pair.spacing)
    keys = {"include_background": True, "spacing": pair.spacing}
    hd95 = compute_hausdorff_distance(*tensors(pair), percentile=95, **keys)
    assert float(hd95) == pytest.approx(max(np.quantile(d, 0.95) for d in distances), abs=2e-4)
    assd = compute_average_surface_distance(*tensors(pair), symmetric=True, **keys)
    assert float(assd) == approx(distances.pooled.mean())
    directed = compute_average_surface_distance(*tensors(pair), **keys)
    assert float(directed) == approx(distances.of_prediction.mean())
    nsd = compute_surface_dice(*tensors(pair), class_thresholds=[1.1], **keys)
    assert float(nsd) == approx((distances.pooled <= 1.1).mean())


@full_pairs
def test_the_largest_distance_differs_by_a_voxel_at_most(pair):
    """Every element lies half a voxel's diagonal from a border voxel, and every border voxel from an element."""
    theirs = compute_hausdorff_distance(*tensors(pair), include_background=True, spacing=pair.spacing)
    assert abs(ours(pair, percentile=100.0).hd - float(theirs)) <= math.hypot(*pair.spacing) + 1e-5


# name, HD95 and ASSD of ours, of theirs: by hand
KNOWN = [
    ("equal", (0, 0), (0, 0)),
    ("slabs 4 apart", (9, None), (9, None)),
    ("slabs 4 apart, thick slices", (9 * 0.7, None), (9 * 0.7, None)),
    ("cube that grew by two", (2, None), (2, None)),
    ("cube that moved, thick slices", (6, None), (6, None)),
    # Elements lie at 3.5, 4.5 and 5.5, 6.5: half of them 2 voxels off, half 1. The voxels are 2 voxels off.
    ("one voxel", (6, 4.5), (6, 6)),
]


@pytest.mark.parametrize(("name", "mine", "theirs"), KNOWN, ids=[name for name, *_ in KNOWN])
def test_known_distances(name, mine, theirs):
    pair = BY_NAME[name]
    keys = {"include_background": True, "spacing": pair.spacing}
    found = ours(pair)
    hd95 = float(compute_hausdorff_distance(*tensors(pair), percentile=95, **keys))
    assert (found.hd, hd95) == (pytest.approx(mine[0]), pytest.approx(theirs[0]))
    if mine[1] is not None:
        assd = float(compute_average_surface_distance(*tensors(pair), symmetric=True, **keys))
        assert (found.assd, assd) == (pytest.approx(mine[1]), pytest.approx(theirs[1]))


def test_a_missed_structure_stays_in_our_mean_and_leaves_theirs():
    """MONAI's issue 9095: its HD95 of nothing predicted is NaN, and the mean passes over it."""
    good, missed = BY_NAME["cube that moved, thick slices"], BY_NAME["missed"]
    metric = HausdorffDistanceMetric(include_background=True, percentile=95)
    for pair in (good, missed):
        metric(*tensors(pair), spacing=pair.spacing)
    assert float(metric.aggregate()) == pytest.approx(6)  # of the good one alone
    assert ours(missed).hd == math.inf
    labels = Labels(("background", "x"), (0, 1))
    details = [
        one
        for pair in (good, missed)
        for one in detail_case(
            pair.prediction.astype(np.int16),
            pair.reference.astype(np.int16),
            case_id=pair.name,
            group=pair.name,
            spacing=pair.spacing,
            labels=labels,
            settings=DetailSettings(),
        )
    ]
    surface = summarise_details(details, labels, DetailSettings(), unit="mm", dimensions=3).surfaces[0]
    diagonal = math.hypot(*(n * s for n, s in zip(missed.reference.shape, missed.spacing, strict=True)))
    assert surface.hd95.mean == pytest.approx((6 + diagonal) / 2)
    assert (surface.missed, surface.hd95.n, surface.hd95_where_both.n) == (1, 2, 1)


@pytest.mark.parametrize("name", ["missed", "invented", "neither"])
def test_empty_sides(name):
    """The largest distance of theirs, and the mean, are infinite as ours are; the percentile alone is not."""
    pair, keys = BY_NAME[name], {"include_background": True, "spacing": BY_NAME[name].spacing}
    found = ours(pair)
    hd100 = float(compute_hausdorff_distance(*tensors(pair), **keys))
    assd = float(compute_average_surface_distance(*tensors(pair), symmetric=True, **keys))
    assert (hd100, assd) == (pytest.approx(found.hd, nan_ok=True), pytest.approx(found.assd, nan_ok=True))
    assert math.isnan(float(compute_hausdorff_distance(*tensors(pair), percentile=95, **keys)))


# ---------------------------------------------------------------------------------------- instances


def panoptic(reference, prediction, threshold=PANOPTIC_IOU):
    """TP, FP, FN and the sum of IoU, by MONAI."""
    both = (torch.from_numpy(prediction), torch.from_numpy(reference))
    return compute_panoptic_quality(*both, match_iou_threshold=threshold, output_confusion_matrix=True).tolist()


@every_pair
def test_panoptic_quality(pair):
    """But for pairs of exactly one half, 1e-6 in their denominator, and their 0 where there is nothing to find."""
    reference, prediction = instances(pair.reference), instances(pair.prediction)
    found = overlaps(reference, prediction).matched(PANOPTIC_IOU)
    above = [one.iou for one in found.pairs if one.iou > PANOPTIC_IOU]
    at_half = found.tp - len(above)
    assert panoptic(reference, prediction) == approx(
        [len(above), found.fp + at_half, found.fn + at_half, math.fsum(above)]
    )
    quality = float(compute_panoptic_quality(torch.from_numpy(prediction), torch.from_numpy(reference)))
    if not pair.reference.any():
        assert (math.isnan(found.panoptic_quality), quality) == (True, 0.0)
    elif not at_half:
        assert found.panoptic_quality == pytest.approx(quality, abs=2e-6)


def test_an_iou_of_exactly_one_half_is_found_here_and_not_there():
    pair = BY_NAME["half"]
    reference, prediction = instances(pair.reference), instances(pair.prediction)
    found = overlaps(reference, prediction).matched(PANOPTIC_IOU)
    assert (found.tp, found.fp, found.fn, found.panoptic_quality) == (1, 0, 0, 0.5)
    assert panoptic(reference, prediction) == [0, 1, 1, 0]


def test_below_one_half_the_largest_overlap_goes_first_here_and_the_largest_sum_there():
    """Reference 0-8 and 8-12, prediction 0-3 and 3-11: 5 shared voxels leave nothing for the other two."""
    reference, prediction = np.zeros((2, 1, 12), dtype=np.int32)
    reference[0, :8], reference[0, 8:] = 1, 2
    prediction[0, :3], prediction[0, 3:11] = 2, 1
    found = overlaps(reference, prediction).matched(0.1)
    assert (found.tp, found.fp, found.fn, found.pairs[0].iou) == (1, 1, 1, pytest.approx(5 / 11))
    assert panoptic(reference, prediction, 0.1) == [2, 0, 0, pytest.approx(3 / 8 + 3 / 9)]


def component_dice_of(pair, spacing):
    found = component_dice(instances(pair.reference), pair.prediction, spacing=spacing)
    return mean_component_dice(found)


def their_component_dice(pair):
    metric = DiceMetric(include_background=False, per_component=True)
    return float(metric(two_channels(pair.prediction), two_channels(pair.reference)).squeeze())


@every_pair
def test_component_dice_in_voxels(pair):
    found = component_dice_of(pair, (1.0,) * pair.reference.ndim)
    assert found == approx(their_component_dice(pair))


def test_cells_are_nearest_in_mm_here_and_in_voxels_there():
    """A false voxel 3 slices of 3 mm from a lesion of one voxel, and 5 voxels of 0.7 mm from one of two."""
    lesions = box((10, 11), (5, 6), (5, 6)) | box((15, 17), (5, 6), (8, 9))
    pair = MaskPair("cells", lesions, lesions | box((10, 11), (5, 6), (8, 9)), THICK)
    assert their_component_dice(pair) == pytest.approx((2 / 3 + 1) / 2)
    assert component_dice_of(pair, THICK) == pytest.approx((1 + 4 / 5) / 2)

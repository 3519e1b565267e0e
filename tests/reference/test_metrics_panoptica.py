"""segkit's metrics beside panoptica's: equal where the convention is, and what each other convention makes of it.

What panoptica said of the pairs of masks is stored (make_panoptica.py); it is not needed here.
"""

import math
from pathlib import Path

import numpy as np
import pytest
from tests.reference.agreement_masks import BY_NAME, PAIRS, THICK
from tests.reference.border_voxels import border_distances
from tests.reference.stored_results import read

from segkit.metrics.component_dice import component_dice, mean_component_dice
from segkit.metrics.lesion_detection import PANOPTIC_IOU, overlaps
from segkit.metrics.overlap import overlap
from segkit.metrics.surface import surface_distances
from segkit.ops.connected_components import connected_components

STORED = read(Path(__file__).with_name("panoptica.json"))
FACES = {"corner to corner, flat"}
"""Flat pairs whose components are not the same by corners, as here, and by faces, as there."""

every_pair = pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
overlapping_pairs = pytest.mark.parametrize(
    "pair", [pair for pair in PAIRS if (pair.reference & pair.prediction).any()], ids=lambda pair: pair.name
)


def approx(value):
    return pytest.approx(value, rel=1e-6, abs=1e-6, nan_ok=True)


def instances(pair, connectivity="full"):
    return [connected_components(mask, connectivity=connectivity)[0] for mask in (pair.reference, pair.prediction)]


def matched(pair, threshold=PANOPTIC_IOU, **keys):
    return overlaps(*instances(pair, **keys)).matched(threshold)


def ours(pair):
    return surface_distances(pair.reference, pair.prediction, spacing=pair.spacing)


@every_pair
def test_dice_and_iou(pair):
    """But for a false alarm where there is no reference: 0 there, and not applicable here."""
    theirs = STORED[pair.name]
    r, p = pair.reference, pair.prediction
    found = overlap(int((r & p).sum()), int((~r & p).sum()), int((r & ~p).sum()))
    if pair.name == "invented":
        assert (theirs["global_bin_dsc"], theirs["global_bin_iou"]) == (0, 0)
        assert math.isnan(float(found.dice))
    else:
        assert float(found.dice) == approx(theirs["global_bin_dsc"])
        assert float(found.iou) == approx(theirs["global_bin_iou"])


@pytest.mark.parametrize("pair", [p for p in PAIRS if p.name not in FACES], ids=lambda pair: pair.name)
def test_panoptic_quality(pair):
    """Components by corners in volumes, an IoU of one half or more: alike."""
    theirs, found = STORED[pair.name], matched(pair)
    assert (found.tp, found.fp, found.fn) == (theirs["tp"], theirs["fp"], theirs["fn"])
    if found.tp:
        assert found.segmentation_quality == approx(theirs["sq"])
    if pair.name == "invented":
        assert (theirs["pq"], theirs["rq"]) == (0, 0)
        assert math.isnan(found.panoptic_quality)
    else:
        assert found.panoptic_quality == approx(theirs["pq"])
        assert found.recognition_quality == approx(theirs["rq"])


def test_flat_components_are_by_corners_here_and_by_faces_there():
    pair = BY_NAME["corner to corner, flat"]
    assert (STORED[pair.name]["tp"], matched(pair).tp, matched(pair, connectivity="faces").tp) == (2, 1, 2)


@pytest.mark.parametrize("pair", [p for p in PAIRS if p.name not in FACES], ids=lambda pair: pair.name)
def test_found_from_an_iou_of_a_tenth_on(pair):
    theirs, found = STORED[pair.name], matched(pair, 0.1)
    assert (found.tp, found.fp, found.fn) == tuple(theirs[f"{name}_from_a_tenth"] for name in ("tp", "fp", "fn"))


def test_below_one_half_the_largest_overlap_goes_first_here_and_the_largest_iou_there():
    """10 reference voxels; 5 of them in a prediction of 25, and 4 of them all that there is of another."""
    pair = BY_NAME["close or large"]
    assert matched(pair, 0.1).segmentation_quality == approx(5 / 30)
    assert STORED[pair.name]["sq_from_a_tenth"] == approx(4 / 10)


@overlapping_pairs
def test_component_dice(pair):
    """Cells are nearest in voxels there; here they are in mm."""
    reference, _ = instances(pair, "faces" if pair.name in FACES else "full")
    spacing = (1.0,) * reference.ndim
    found = mean_component_dice(component_dice(reference, pair.prediction, spacing=spacing))
    assert found == approx(STORED[pair.name]["region_avg_dsc"])


@overlapping_pairs
def test_distances_of_whole_masks_are_in_voxels_whatever_the_spacing(pair):
    """Border voxels that count one. HD95: a quantile with interpolation of both directions pooled. ASSD: the mean of
    two means. NSD: the mean of two shares, within half a voxel."""
    theirs = STORED[pair.name]
    unit = (1.0,) * pair.reference.ndim
    distances = border_distances(pair.reference, pair.prediction, unit)
    assert theirs["global_bin_hd95"] == approx(np.quantile(distances.pooled, 0.95))
    assert theirs["global_bin_assd"] == approx(np.mean([one.mean() for one in distances]))
    assert theirs["global_bin_nsd"] == approx(np.mean([(one <= 0.5).mean() for one in distances]))


def test_a_shift_of_two_slices_of_3_mm_is_6_mm_here_and_2_there():
    pair = BY_NAME["cube that moved, thick slices"]
    assert pair.spacing == THICK
    assert (ours(pair).hd, STORED[pair.name]["global_bin_hd95"]) == (approx(6), approx(2))


@overlapping_pairs
def test_distances_of_instances_are_in_mm(pair):
    """ASSD of the matched pairs: the mean of two means, then of the pairs; infinite where nothing is matched."""
    reference, prediction = instances(pair, "faces" if pair.name in FACES else "full")
    found = overlaps(reference, prediction).matched(PANOPTIC_IOU)
    names = [np.unique(ids[ids > 0]) for ids in (reference, prediction)]
    means = [
        np.mean([d.mean() for d in border_distances(reference == r, prediction == p, pair.spacing)])
        for r, p in ((names[0][one.reference], names[1][one.prediction]) for one in found.pairs)
    ]
    assert STORED[pair.name]["sq_assd"] == approx(np.mean(means) if means else math.inf)


def test_masks_that_share_no_voxel_have_a_distance_here_and_none_there():
    """Infinite, as if one side were empty; HD95 and NSD end in an error there, so that nothing is stored of them."""
    pair = BY_NAME["slabs 4 apart"]
    theirs = STORED[pair.name]
    assert (theirs["global_bin_assd"], "global_bin_hd95" in theirs) == (math.inf, False)
    assert ours(pair).hd == approx(9)
    assert 4 < ours(pair).assd < 9


@pytest.mark.parametrize("name", ["missed", "invented", "neither"])
def test_empty_sides(name):
    """Distances alike; HD95 is an error there."""
    assert ours(BY_NAME[name]).assd == approx(STORED[name]["global_bin_assd"])
    assert "global_bin_hd95" not in STORED[name]

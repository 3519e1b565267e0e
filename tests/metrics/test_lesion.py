import numpy as np
import pytest

from segkit.metrics.lesion import LesionSettings, lesions, match_lesions


def line(*runs, length=40):
    """A 1-voxel-high picture with (start, stop, id) runs."""
    ids = np.zeros((1, length), dtype=np.int32)
    for start, stop, name in runs:
        ids[0, start:stop] = name
    return ids


def match(reference, prediction, **options):
    found = match_lesions(reference, prediction, **options)
    return found.tp, found.fp, found.fn, found.iou_sum


def test_found_missed_invented():
    reference = line((0, 4, 1), (10, 14, 2))
    prediction = line((0, 4, 7), (20, 23, 8))
    assert match(reference, prediction) == (1, 1, 1, 1.0)


def test_split_is_one_found_and_one_invented():
    assert match(line((0, 10, 1)), line((0, 6, 1), (6, 10, 2))) == (1, 1, 0, pytest.approx(0.6))


def test_merge_is_one_found_and_one_missed():
    assert match(line((0, 6, 1), (6, 10, 2)), line((0, 10, 1))) == (1, 0, 1, pytest.approx(0.6))


def test_below_the_threshold_counts_as_missed_and_invented():
    reference, prediction = line((0, 10, 1)), line((9, 20, 1))  # 1 shared of 20
    assert match(reference, prediction, min_iou=0.1) == (0, 1, 1, 0.0)
    assert match(reference, prediction, min_iou=0.05) == (1, 0, 0, pytest.approx(0.05))


def test_largest_overlap_goes_first():
    # Prediction 1 shares 5 voxels with reference 1 and 3 with reference 2; prediction 2 shares 3 with reference 1.
    reference = line((0, 8, 1), (8, 12, 2))
    prediction = line((0, 3, 2), (3, 11, 1))
    assert match(reference, prediction) == (1, 1, 1, pytest.approx(5 / 11))


@pytest.mark.parametrize("runs", [[], [(0, 3, 1)]])
def test_one_side_empty(runs):
    empty, some = line(), line(*runs)
    assert match(some, empty) == (0, 0, len(runs), 0.0)
    assert match(empty, some) == (0, len(runs), 0, 0.0)


@pytest.mark.parametrize("wrong", [-0.1, 1.1])
def test_threshold_is_checked(wrong):
    with pytest.raises(ValueError, match="min_iou"):
        match_lesions(line(), line(), min_iou=wrong)


def test_a_threshold_of_zero_is_any_shared_voxel():
    reference, prediction = line((0, 10, 1)), line((9, 40, 1))  # 1 shared of 40
    assert match(reference, prediction, min_iou=0.0) == (1, 0, 0, pytest.approx(1 / 40))
    assert match(reference, line((10, 40, 1)), min_iou=0.0) == (0, 1, 1, 0.0)  # they touch, and share nothing


def test_the_smallest_volume_is_in_mm():
    mask = line((0, 3, 1), (10, 14, 1), (20, 25, 1)) > 0  # 3, 4 and 5 voxels of 0.1 mm^3
    settings = LesionSettings(min_mm3=0.4)
    assert np.count_nonzero(lesions(mask, settings, spacing=(0.2, 0.5))) == 9
    assert np.count_nonzero(lesions(mask, settings, spacing=(1.0, 1.0))) == 12
    assert "0.4 mm^3" in settings.rule()
    assert "0.4 pixels" in settings.rule("pixels")
    with pytest.raises(ValueError, match="spacing"):
        lesions(mask, settings)


def test_corners_join_under_full_connectivity_only():
    mask = np.eye(3, dtype=bool)
    assert lesions(mask, LesionSettings(connectivity="full")).max() == 1
    assert lesions(mask, LesionSettings(connectivity="faces")).max() == 3


def test_small_components_and_instance_ids():
    mask = line((0, 1, 1), (5, 9, 1)) > 0
    assert np.count_nonzero(lesions(mask, LesionSettings(min_voxels=2))) == 4
    touching = line((0, 4, 3), (4, 8, 9))
    assert set(np.unique(lesions(touching > 0, LesionSettings(), instances=touching))) == {0, 3, 9}
    assert set(np.unique(lesions(touching > 0, LesionSettings()))) == {0, 1}

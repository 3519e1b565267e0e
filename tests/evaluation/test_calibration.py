from dataclasses import replace

import numpy as np
import pytest
import torch

import segkit.evaluation.native
from segkit.errors import DataError
from segkit.evaluation.calibration import calibration_of_case, curve_of_case, region_of
from segkit.evaluation.native import native_prediction
from segkit.metrics.reliability import reliability
from segkit.metrics.temperature import temperature_curve
from segkit.ops.resample import resample_logits

SHAPE, CROP = (14, 16, 6), ((1, 13), (0, 16), (1, 6))
INSIDE = tuple(slice(start, stop) for start, stop in CROP)


@pytest.fixture(params=[1, 10**9], ids=["by rows", "at once"])
def slabs(request, monkeypatch):
    monkeypatch.setattr(segkit.evaluation.native, "_PORTION", request.param)


@pytest.fixture
def example(made):
    """Logits of two members on two grids, of a case of thick slices that is cropped and partly ignored."""
    truth = made.boxes(SHAPE, seed=3)
    truth[4:6, 4:8, 2] = -1
    case = made.case(truth, group="p", way_back=made.geometry(SHAPE, spacing=(1.0, 0.8, 2.5), crop=CROP))
    said = torch.from_numpy(np.where(truth < 0, 0, truth)[INSIDE].astype(np.int64))
    sure = torch.nn.functional.one_hot(said, 3).movedim(-1, 0).float()
    first = 2 * sure + torch.randn(sure.shape)
    second = resample_logits(2 * sure, (9, 12, 5)) + torch.randn(3, 9, 12, 5)
    logits = (first + resample_logits(second, first.shape[1:])) / 2
    return [first, second], case, logits


def chosen(region):
    mask = np.zeros(int(np.prod([stop - start for start, stop in CROP])), dtype=bool)
    mask[region] = True
    return mask.reshape([stop - start for start, stop in CROP])


def test_a_region_by_hand(made):
    """Truth one voxel, prediction another, 2 apart; 1 mm of margin reaches the neighbours in the plane, no slice."""
    truth, prediction = np.zeros((9, 9, 3), np.int16), np.zeros((9, 9, 3), np.int16)
    truth[3, 4, 1], prediction[5, 4, 1] = 1, 1
    truth[3, 5, 1] = -1  # ignored: neither looked at ...
    prediction[8, 8, 2], truth[8, 8, 2] = 1, -1  # ... nor does what is predicted there make a region
    case = made.case(truth, way_back=made.geometry(truth.shape, spacing=(1.0, 1.0, 3.0)))
    region = region_of(prediction, case, num_classes=3, margin=1.0)
    voxels = [(2, 4), (3, 3), (3, 4), (4, 4), (5, 3), (5, 4), (5, 5), (6, 4)]
    expected = [np.ravel_multi_index((x, y, 1), truth.shape) for x, y in voxels]
    np.testing.assert_array_equal(region.by_class[0], expected)
    assert region.by_class[1].size == 0
    np.testing.assert_array_equal(region.union, expected)


def test_what_lies_outside_the_crop_is_not_looked_at(made):
    truth = np.zeros((8, 8), np.int16)
    truth[0, 0], truth[4, 4] = 1, 2
    case = made.case(truth, way_back=made.geometry((8, 8), crop=((2, 8), (2, 8))))
    region = region_of(np.zeros((8, 8), np.int16), case, num_classes=3, margin=0.0)
    assert region.by_class[0].size == 0
    np.testing.assert_array_equal(region.union, [2 * 6 + 2])


def test_the_curve_is_that_of_the_region(example, slabs):
    members, case, logits = example
    found = curve_of_case(members, case, margin=1.7)
    region = region_of(native_prediction(members, case.geometry), case, num_classes=3, margin=1.7)
    mask = chosen(region.union)
    assert not mask[case.native_label[INSIDE] < 0].any()
    expected = temperature_curve(logits.numpy()[:, mask], case.native_label[INSIDE][mask])
    assert found.n == expected.n == mask.sum() > 100
    np.testing.assert_allclose(found.mean(), expected.mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.3])
def test_the_numbers_of_a_case_are_those_of_the_formulas(example, slabs, temperature):
    members, case, logits = example
    found = calibration_of_case(members, case, temperature=temperature, margin=2.0)
    prediction = native_prediction(members, case.geometry)
    region = region_of(prediction, case, num_classes=3, margin=2.0)
    truth, predicted = case.native_label[INSIDE], prediction[INSIDE]
    for t, tables, nll in ((1.0, found.before, found.nll[0]), (temperature, found.after, found.nll[1])):
        p = torch.softmax(logits.double() / t, 0).numpy()
        for k in (1, 2):
            mask = chosen(region.by_class[k - 1])
            expected = reliability(p[k][mask], truth[mask] == k)
            assert tables[k - 1].n == mask.sum()
            assert tables[k - 1].ece == pytest.approx(expected.ece, abs=1e-3)  # a voxel on the border of two bins
            assert tables[k - 1].brier == pytest.approx(expected.brier, abs=1e-6)
        mask = chosen(region.union)
        own = np.take_along_axis(p[:, mask], truth[mask][None].astype(np.int64), 0)
        assert nll == pytest.approx(-np.log(own).mean(), rel=1e-5)
    for k in (1, 2):
        inside = p[k][predicted == k].sum()
        estimate = 2 * inside / (np.count_nonzero(predicted == k) + p[k].sum())
        assert found.estimate[k - 1] == pytest.approx(estimate, rel=1e-5)
        seen = case.native_label >= 0
        both = np.count_nonzero((prediction == k) & (case.native_label == k))
        sizes = np.count_nonzero((prediction == k) & seen) + np.count_nonzero(case.native_label == k)
        assert found.dice[k - 1] == pytest.approx(2 * both / sizes)
    assert (found.case_id, found.group, found.voxels) == ("a", "p", region.union.size)


def test_the_estimate_does_not_know_the_truth(example):
    members, case, _ = example
    other = replace(case, native_label=np.roll(case.native_label, 3, axis=0))
    one, two = (calibration_of_case(members, each, temperature=1.4, margin=2.0) for each in (case, other))
    np.testing.assert_array_equal(one.estimate, two.estimate)
    assert not np.array_equal(one.dice, two.dice)


def test_nothing_there_and_nothing_predicted(made):
    case = made.case(np.zeros((6, 7), np.int16))
    logits = made.one_hot(np.zeros((6, 7)))
    assert curve_of_case([logits], case, margin=5.0).n == 0
    found = calibration_of_case([logits], case, temperature=2.0, margin=5.0)
    assert found.voxels == 0
    assert np.isnan([*found.nll, *found.dice, *found.estimate, *(table.ece for table in found.before)]).all()


def test_logits_that_are_not_finite_and_cases_without_truth_are_refused(made):
    case = made.case(np.zeros((6, 7), np.int16))
    with pytest.raises(DataError, match="not finite"):
        curve_of_case([torch.full((2, 6, 7), torch.nan)], case, margin=5.0)
    with pytest.raises(DataError, match="no reference"):
        curve_of_case([torch.zeros(2, 6, 7)], replace(case, native_label=None), margin=5.0)


def test_a_case_whose_classes_are_not_all_annotated_is_refused(example):
    """Its background is no truth: what the network calls the class that nobody drew may be right."""
    members, case, _ = example
    partly = replace(case, annotated=frozenset({1}))
    with pytest.raises(DataError, match="not annotated"):
        curve_of_case(members, partly, margin=2.0)
    with pytest.raises(DataError, match="not annotated"):
        calibration_of_case(members, partly, temperature=2.0, margin=2.0)

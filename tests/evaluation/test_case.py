import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from segkit.errors import DataError
from segkit.evaluation import EvaluationSettings, evaluate_case, evaluate_streams, predict_native
from segkit.evaluation.native import Stream
from segkit.metrics.composite import CompositeSettings


def counts(result):
    return [(row.tp, row.fp, row.fn) for row in result.rows]


def oracle(logits):
    return lambda image: logits


def planes(logits, thick=2):
    """The same logits as a network gives them plane by plane: what came before is overwritten."""

    def blocks():
        for block in logits.split(thick, dim=1):
            held = block.clone()
            yield held
            held.fill_(1e9)

    return Stream(blocks(), logits.shape[0], tuple(logits.shape[1:]))


@pytest.mark.parametrize("shape", [(20, 18), (12, 14, 10)])
def test_counts_by_hand(made, shape):
    label = made.boxes(shape)
    wrong = np.roll(label, 1, axis=0)
    result = evaluate_case(oracle(made.one_hot(wrong)), made.case(label, group="p"), EvaluationSettings())
    expected = [
        (
            np.count_nonzero((wrong == k) & (label == k)),
            np.count_nonzero((wrong == k) & (label != k)),
            np.count_nonzero((wrong != k) & (label == k)),
        )
        for k in (1, 2)
    ]
    assert counts(result) == expected
    assert (result.case_id, result.group) == ("a", "p")
    np.testing.assert_array_equal(result.prediction, wrong)
    assert torch.equal(result.logits, made.one_hot(wrong))
    numbers = result.without_arrays()
    assert numbers.rows == result.rows
    assert numbers.prediction is None
    assert numbers.logits is None


def test_the_predictor_sees_the_prepared_image(made):
    image = np.random.default_rng(0).normal(size=(2, 6, 5)).astype(np.float32)
    image.setflags(write=False)  # as a memory map is
    seen = []

    def predictor(tensor):
        seen.append(tensor)
        return torch.zeros(3, 6, 5)

    predict_native(predictor, made.case(np.zeros((6, 5), np.int16), image=image))
    assert torch.equal(seen[0], torch.tensor(image))


@pytest.mark.parametrize(
    ("average", "expected", "numbers"),
    [("logits", [1, 0, 1, 0], (2, 0, 0)), ("probabilities", [1, 1, 0, 0], (1, 1, 1))],
)
def test_several_networks_are_counted_by_their_mean(made, average, expected, numbers):
    """Logits (0, z) of three networks. Means of z: 2.33, -2, 1.67, -1; of sigmoid(z): 0.513, 0.545, 0.413, 0.269."""
    z = torch.tensor([[[9.0, -9.0, 9.0, -1.0]], [[-1.0, 1.5, -2.0, -1.0]], [[-1.0, 1.5, -2.0, -1.0]]])
    members = [planes(torch.stack([torch.zeros(1, 4), one])) for one in z]
    case = made.case(np.array([[1, 0, 1, 0]], np.int16))
    result = evaluate_streams(members, case, EvaluationSettings(), average=average)
    assert result.prediction.tolist() == [expected]
    assert counts(result) == [numbers]
    assert result.logits is None


@pytest.mark.parametrize("thick", [1, 3, 8])
def test_one_network_is_an_ensemble_of_one_in_blocks_of_any_thickness(made, thick):
    label = made.boxes((8, 9, 7))
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 8, 9, 7)).astype(np.float32))
    alone = evaluate_case(oracle(logits), made.case(label), EvaluationSettings())
    for times in (1, 2, 3):
        members = [planes(logits, thick) for _ in range(times)]
        together = evaluate_streams(members, made.case(label), EvaluationSettings())
        assert together.rows == alone.rows
        np.testing.assert_array_equal(together.prediction, alone.prediction)


def test_output_that_is_not_finite_is_told_once_and_counts(made, caplog):
    label = made.boxes((8, 9, 7))
    logits = made.one_hot(label)
    logits[:, 2:5] = float("nan")
    streamed = evaluate_streams([planes(logits, 1)], made.case(label), EvaluationSettings())
    assert caplog.text.count("not finite") == 1
    assert streamed.rows == evaluate_case(oracle(logits), made.case(label), EvaluationSettings()).rows


def test_ignored_voxels_leave_truth_and_prediction(made):
    label = np.zeros((8, 8), np.int16)
    label[:4], label[6:] = 1, -1
    prediction = np.ones((8, 8), np.int16)
    settings = EvaluationSettings(composite=CompositeSettings(level="lesion"))
    row = evaluate_case(oracle(made.one_hot(prediction)), made.case(label), settings).rows[0]
    assert (row.tp, row.fp, row.fn) == (32, 16, 0)
    assert (row.lesions.tp, row.lesions.fp) == (1, 0)


def test_lesions_are_matched_only_where_the_score_is_of_them(made):
    label = np.zeros((9, 20), np.int16)
    label[2:6, 2:6], label[2:6, 6:10] = 1, 1  # two touching objects of one class
    instances = label.astype(np.int32)
    instances[2:6, 6:10] = 2
    predictor = oracle(made.one_hot(label, classes=2))
    assert evaluate_case(predictor, made.case(label), EvaluationSettings()).rows[0].lesions is None
    settings = EvaluationSettings(composite=CompositeSettings(level="lesion"))
    by_component = evaluate_case(predictor, made.case(label), settings).rows[0].lesions
    by_instance = evaluate_case(predictor, made.case(label, instances=instances), settings).rows[0].lesions
    assert (by_component.tp, by_component.fp, by_component.fn) == (1, 0, 0)
    assert (by_instance.tp, by_instance.fp, by_instance.fn) == (1, 0, 1)


def test_without_reference(made):
    lonely = replace(made.case(np.zeros((4, 4), np.int16)), native_label=None)
    with pytest.raises(DataError, match="no reference"):
        evaluate_case(oracle(torch.zeros(2, 4, 4)), lonely, EvaluationSettings())


def test_label_of_another_shape(made):
    odd = made.case(np.zeros((4, 5), np.int16), image=np.zeros((1, 4, 4), np.float32), way_back=made.geometry((4, 4)))
    with pytest.raises(DataError, match="differ in shape"):
        evaluate_case(oracle(torch.zeros(2, 4, 4)), odd, EvaluationSettings())


def test_output_that_is_not_finite_is_said(made, caplog):
    with caplog.at_level(logging.WARNING):
        evaluate_case(
            oracle(torch.full((2, 4, 4), torch.nan)), made.case(made.boxes((4, 4), classes=2)), EvaluationSettings()
        )
    assert "not finite" in caplog.text


def test_settings_survive_json():
    config = {
        "score": {
            "level": "lesion",
            "aggregate": "pooled",
            "weights": {"f1": 0.5, "iou": 0.5, "recall": 0, "precision": 0, "case_specificity": 0},
            "lesion": {"min_iou": 0.5, "min_voxels": 3, "connectivity": "faces"},
        },
        "validation": {"step": 0.25},
    }
    settings = EvaluationSettings.from_config(config)
    assert EvaluationSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert settings.step == 0.25
    assert settings.lesion.min_voxels == 3


@pytest.mark.parametrize(("key", "value"), [("level", "pixel"), ("aggregate", "mean")])
def test_unknown_choices_are_named(key, value):
    record = EvaluationSettings().to_dict()
    record["composite"][key] = value
    with pytest.raises(Exception, match=f"no such {key}: {value}"):
        EvaluationSettings.from_dict(record)


def test_a_class_that_was_not_annotated_is_not_counted_and_changes_no_other(made):
    """Class 2 predicted where class 1 is: a miss of class 1, as any voxel that is not 1. Nothing is said of class 2."""
    label = np.zeros((8, 8), np.int16)
    label[:4] = 1
    prediction = label.copy()
    prediction[3:6] = 2  # 8 voxels of class 1, 16 of the background
    settings = EvaluationSettings(composite=CompositeSettings(level="lesion"))
    predictor = oracle(made.one_hot(prediction))
    whole = evaluate_case(predictor, made.case(label), settings).rows
    partly = evaluate_case(predictor, replace(made.case(label), annotated=frozenset({1})), settings).rows
    assert partly[0] == whole[0]
    assert (partly[0].tp, partly[0].fp, partly[0].fn) == (24, 0, 8)
    assert (whole[1].fp, whole[1].annotated) == (24, True)
    assert (partly[1].fp, partly[1].annotated, partly[1].lesions) == (0, False, None)
    assert np.isnan(partly[1].overlap.dice)

"""Models are the same by what decides their logits, and by nothing else."""

import pytest

from segkit.runs.model_identity import are_models, keys_that_restore, models_text, same_checkpoints, same_models

A = {"run": "a", "checkpoint": 100, "step": 0.5, "mirror_axes": [0]}
B = {"run": "b", "checkpoint": 200, "step": 0.5, "mirror_axes": []}


def test_the_order_and_other_keys_do_not_matter():
    assert same_models([A, B], [B | {"reason": "x"}, A | {"mirror_axes": (0,)}])


@pytest.mark.parametrize(
    "others",
    [[A], [A, B, B], [A, B | {"checkpoint": 300}], [A, B | {"step": 0.25}], [A, B | {"mirror_axes": [1]}], []],
)
def test_any_other_logits_are_another_model(others):
    assert not same_models([A, B], others)


def test_the_same_checkpoints_may_predict_otherwise():
    others = [B | {"step": 0.25}, A | {"mirror_axes": []}]
    assert same_checkpoints([A, B], others)
    assert not same_models([A, B], others)
    assert not same_checkpoints([A, B], [A, B | {"checkpoint": 300}])
    assert not same_checkpoints([A, B], [A, A])


@pytest.mark.parametrize(
    ("others", "keys"),
    [
        ([B, A | {"mirror_axes": (0,)}], []),
        ([A | {"mirror_axes": []}, B], ["mirror=true"]),
        ([A, B | {"step": 0.25}], ["validation.step=0.5"]),
        ([A | {"mirror_axes": [], "step": 0.25}, B | {"step": 0.25}], ["mirror=true", "validation.step=0.5"]),
    ],
)
def test_the_keys_that_bring_a_way_to_predict_back(others, keys):
    assert keys_that_restore([A, B], others) == keys


def test_plain_and_each_with_its_own_tiles():
    some = [A | {"mirror_axes": [], "step": 0.25}, B]
    others = [A | {"step": 1.0}, B | {"step": 1.0}]
    assert keys_that_restore(some, others) == ["mirror=false", "validation.step=null"]


def test_in_words():
    assert models_text([A, B]) == "a at step 100, tiles 0.5, mirrored [0]; b at step 200, tiles 0.5, mirrored []"


def test_what_was_read_may_be_models():
    assert are_models([A, B])
    assert not are_models([A, "b"])
    assert not are_models(None)

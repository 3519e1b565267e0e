"""Models are the same by what decides their logits, and by nothing else."""

import pytest

from segkit.runs.model_identity import are_models, models_text, same_models

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


def test_in_words():
    assert models_text([A, B]) == "a at step 100, tiles 0.5, mirrored [0]; b at step 200, tiles 0.5, mirrored []"


def test_what_was_read_may_be_models():
    assert are_models([A, B])
    assert not are_models([A, "b"])
    assert not are_models(None)

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.data.labels import (
    distinct,
    infer_labels,
    labels_of_values,
    look_like_instances,
    to_class_indices,
    to_file_ids,
)
from segkit.data.layouts import Dataset
from segkit.errors import DataError
from segkit.types import Case, Labels

EMPTY = Dataset("d", Path("/d"), "paired", (), (), None)


@pytest.mark.parametrize(
    ("values", "kind", "ids"),
    [
        ({"a": (0, 1), "b": (0, 1)}, "semantic", (0, 1)),
        ({"a": (0, 255), "b": (0, 255)}, "semantic", (0, 255)),
        ({"a": (0, 1), "b": (0,)}, "semantic", (0, 1)),
        ({"a": (0, 1, 2), "b": (0, 1, 2)}, "semantic", (0, 1, 2)),
        ({"a": (0, 1, 2), "b": (0, 1)}, "instances", (0, 1)),
        ({"a": tuple(range(102)), "b": (0, 1), "c": (0,)}, "instances", (0, 1)),
        ({"a": (0, 1, 2, 3), "b": (0, 2)}, "semantic", (0, 1, 2, 3)),
        ({"a": (1, 2), "b": (2,)}, "semantic", (0, 1, 2)),
    ],
)
def test_the_rule_for_undeclared_values(values, kind, ids):
    labels = labels_of_values(values)
    assert (labels.kind, labels.ids) == (kind, ids)
    assert len(labels.names) == len(ids)
    assert labels.names[0] == "background"


def test_a_word_of_the_user_decides():
    values = {"a": (0, 1, 2), "b": (0, 1)}
    assert labels_of_values(values, kind="semantic").ids == (0, 1, 2)
    assert labels_of_values({"a": (0, 7, 9)}, kind="instances").kind == "instances"
    assert labels_of_values({"a": (0, 1, 255), "b": (0, 1)}, ignore=255) == Labels(
        ("background", "foreground"), (0, 1), "semantic", 255
    )
    assert not look_like_instances([])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"a": (0,), "b": (0,)}, "no foreground in any case"),
        ({"a": (0,), "b": ()}, "no foreground in any case"),
        ({"a": (-1, 0, 1)}, "negative"),
        ({"a": tuple(range(0, 1000, 2))}, "too many values"),
    ],
)
def test_values_that_are_neither(values, message):
    with pytest.raises(DataError, match=message):
        labels_of_values(values)


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({"background": 0, "b": 2, "a": 1}, Labels(("background", "a", "b"), (0, 1, 2))),
        ({"background": 0, "lesion": 255}, Labels(("background", "lesion"), (0, 255))),
        ({"lesion": 1}, Labels(("background", "lesion"), (0, 1))),
        ({"bg": 0, "lesion": 1, "ignore": 2}, Labels(("bg", "lesion"), (0, 1), ignore_id=2)),
    ],
)
def test_declared_labels_open_no_file(declared, expected):
    missing = Case("a", (Path("/gone"),), Path("/gone"), "a")
    assert infer_labels(EMPTY, (missing,), declared=declared) == expected


@pytest.mark.parametrize(
    ("declared", "kind", "message"),
    [
        ({"background": 0, "a": 1, "b": 1}, "auto", "one value"),
        ({"background": 0}, "auto", "no foreground"),
        ({"background": 0, "a": -2}, "auto", "negative"),
        ({"background": 0, "a": 1, "b": 2}, "instances", "several classes"),
    ],
)
def test_contradictory_declarations(declared, kind, message):
    with pytest.raises(DataError, match=message):
        infer_labels(EMPTY, (), declared=declared, kind=kind)


def test_only_the_given_cases_are_read(tmp_path):
    nib.save(nib.Nifti1Image(np.array([[[0, 1, 4]]], dtype=np.float32), np.eye(4)), tmp_path / "a.nii")
    readable = Case("a", (), tmp_path / "a.nii", "a")
    assert infer_labels(EMPTY, (readable,)).ids == (0, 1, 4)
    with pytest.raises(DataError, match="not there"):
        infer_labels(EMPTY, (readable, Case("b", (), tmp_path / "gone.nii", "b")))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(ids=st.sets(st.integers(1, 1000), min_size=1, max_size=20), seed=st.integers(0, 100))
def test_to_indices_and_back_is_the_identity(ids, seed):
    ordered = (0, *sorted(ids))
    labels = Labels(tuple(map(str, ordered)), ordered)
    values = np.random.default_rng(seed).choice(ordered, (3, 4, 5)).astype(np.int32)
    indices = to_class_indices(values, labels)
    assert indices.max() < labels.num_classes
    np.testing.assert_array_equal(to_file_ids(indices, labels), values)


@pytest.mark.parametrize("high", [3, 65_000, 70_000, 2**31 - 1])
@pytest.mark.parametrize("low", [0, 7, -1, -(2**31)])
def test_values_near_and_far_apart_are_found_and_turned_alike(low, high):
    """By a table where they lie close together, by a search where they do not."""
    spread = np.array([low, low + 1, high - 1, high], dtype=np.int32)
    values = np.random.default_rng(0).permutation(np.tile(spread, 15)).reshape(3, 4, 5)
    assert distinct(values) == sorted(set(spread.tolist()))
    ids = tuple(sorted(set(spread.tolist()) | {0}))
    labels = Labels(tuple(map(str, ids)), ids, ignore_id=high)
    expected = [[-1 if value == high else ids.index(value) for value in row] for row in values.reshape(12, 5).tolist()]
    np.testing.assert_array_equal(to_class_indices(values, labels).reshape(12, 5), expected)
    assert distinct(values[:0]) == []


def test_ignored_undeclared_and_instance_values():
    labels = Labels(("background", "x"), (0, 5), ignore_id=255)
    np.testing.assert_array_equal(to_class_indices(np.array([0, 5, 255]), labels), [0, 1, -1])
    with pytest.raises(DataError, match="not declared") as caught:
        to_class_indices(np.array([0, 5, 6, 9]), labels, where="case a, label a.png")
    assert "found 6, 9; declared are background 0, x 5" in caught.value.why
    assert caught.value.where == "case a, label a.png"
    instances = Labels(("background", "object"), (0, 1), "instances", 255)
    np.testing.assert_array_equal(to_class_indices(np.array([0, 1, 77, 255]), instances), [0, 1, 1, -1])

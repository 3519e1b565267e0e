"""Which classes were annotated in which case: as declared, on the way to the model's classes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from segkit.data.annotated import annotated_classes, annotated_indices, partly_annotated, with_annotated
from segkit.data.layouts import discover
from segkit.errors import DataError
from segkit.types import Case, Labels

LABELS = {"background": 0, "liver": 1, "tumour": 2, "Ignore": 9}
ROOT = Path("/data")


def case(annotated=None):
    return Case("a", (Path("a.png"),), None, "a", annotated)


def declare(root, annotated):
    path = root / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "annotated": annotated}))


def test_classes_by_case_in_the_order_of_the_labels():
    assert annotated_classes({}, LABELS, ROOT) == {}
    found = annotated_classes({"annotated": {"a": ["tumour", "liver"], "b": ["tumour"]}}, LABELS, ROOT)
    assert found == {"a": ("liver", "tumour"), "b": ("tumour",)}
    assert [one.annotated for one in with_annotated([case()], found)] == [("liver", "tumour")]


@pytest.mark.parametrize(
    ("annotated", "labels", "message"),
    [
        ({"a": ["liver"]}, None, "without labels"),
        (["a"], LABELS, "cannot be understood"),
        ({"a": "liver"}, LABELS, "cannot be understood"),
        ({"a": [1]}, LABELS, "cannot be understood"),
        ({"a": []}, LABELS, "cannot be understood"),
        ({"a": ["spleen"]}, LABELS, r"case a[\s\S]*names spleen; labels has liver, tumour"),
        ({"a": ["background"]}, LABELS, "names background"),
        ({"a": ["Ignore"]}, LABELS, "names Ignore"),
    ],
)
def test_what_is_no_such_declaration_is_refused(annotated, labels, message):
    with pytest.raises(DataError, match=message):
        annotated_classes({"annotated": annotated}, labels, ROOT)


@pytest.mark.parametrize(
    ("annotated", "indices"),
    [(None, None), (("tumour",), {2}), (("liver", "tumour"), None), (("spleen",), set())],
)
def test_indices_are_those_of_the_model(annotated, indices):
    labels = Labels(("background", "liver", "tumour"), (0, 3, 7))
    assert annotated_indices(case(annotated), labels) == (None if indices is None else frozenset(indices))


def test_partly_annotated_are_the_cases_that_lack_a_class():
    cases = [
        replace(case(annotated), case_id=name)
        for name, annotated in (
            ("not named", None),
            ("all named", ("liver", "tumour")),
            ("some", ("tumour",)),
            ("other order", ("tumour", "liver")),
        )
    ]
    assert partly_annotated(cases, LABELS) == {"some": ("tumour",)}
    assert partly_annotated(cases[:1], None) == {}


def test_a_data_set_gives_each_case_its_classes(nnunet_raw):
    root = nnunet_raw(cases=2)
    assert [one.annotated for one in discover(root).cases] == [None, None]
    declare(root, {"phantom_001": ["ball_b"], "elsewhere": ["ball_a"]})
    dataset = discover(root)
    assert [one.annotated for one in dataset.cases] == [None, ("ball_b",)]
    assert dataset.annotated == {"phantom_001": ("ball_b",), "elsewhere": ("ball_a",)}

import math

import pytest

from segkit.configuration.value_types import parse_comment


def kind(text):
    comment = parse_comment(f"{text}. Meaning.")
    assert comment is not None, text
    return comment.type


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("int", [0, -3], [1.0, True, "1", None]),
        ("int >= 1", [1, 99], [0, 1.5]),
        ("int or null", [None, 4], ["null"]),
        ("float > 0", [1e-9, 3], [0, -1.0, math.inf, math.nan, True]),
        ("float < -0.5", [-1], [-0.5, 0]),
        ("float in [0, 1)", [0, 0.99], [1, -1e-9]),
        ("float in (0, 1]", [1, 0.5], [0]),
        ("bool", [True, False], [0, 1, "true"]),
        ("str", ["", "a"], [1, None]),
        ("path or list of path", ["a", ["a", "b"]], [[1], None]),
        ("dict", [{}, {"a": 1}], [[], "a"]),
        ("one of a|b-c|32-true or null", ["a", "b-c", "32-true", None], ["b", "null"]),
        ("list of int >= 1", [[], [1, 2]], [[0], 1, [[1]]]),
        ("list of list of int >= 1 or null", [None, [[1], [2, 3]]], [[1], [[0]]]),
        ("float in [0, 1) or one of equal", [0.5, "equal"], ["other", 1]),
    ],
)
def test_a_type_accepts_what_it_says(text, inside, outside):
    assert all(kind(text).accepts(value) for value in inside)
    assert not any(kind(text).accepts(value) for value in outside)


def test_a_comment_has_type_unit_and_meaning():
    comment = parse_comment("list of float > 0 or null, mm per voxel. The grid; e.g. 0.5 of the finest.")
    assert comment.type.text == "list of float > 0 or null"
    assert comment.unit == "mm per voxel"
    assert comment.meaning == "The grid; e.g. 0.5 of the finest."


@pytest.mark.parametrize("text", ["", "A remark.", "integer. Meaning.", "int >= x. Meaning.", "int Meaning."])
def test_anything_else_is_no_type(text):
    assert parse_comment(text) is None


def test_choices_are_gathered_over_alternatives():
    assert kind("one of a|b or path or one of c").choices == ("a", "b", "c")
    assert kind("one of a|b or path").has("path")
    assert not kind("list of path").has("path")


def test_values_get_the_form_of_their_type(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert str(kind("list of float > 0").normalised([1, 2.5])) == "[1.0, 2.5]"
    assert str(kind("float in [0, 1) or one of equal").normalised(0)) == "0.0"
    assert kind("path or list of path").normalised(["~/a", "b~"]) == ["/home/me/a", "b~"]
    assert type(kind("int >= 0 or one of auto").normalised(3)) is int
    assert kind("float or null").normalised(None) is None

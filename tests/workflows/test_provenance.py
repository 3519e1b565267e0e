import pytest

from segkit.data.splits import Roles
from segkit.errors import DataError, UsageError
from segkit.workflows.provenance import HELD_OUT, OPTIMISTIC, SEEN, Model, Sighting, label_of, seen_by

ROLES = Roles(train=("a",), tuning=("b",), test=("c", "d"), content_hashes={"a": "A", "b": "B"}, held_out=("e",))
ONE = Model("one", ROLES)


def test_seen_by_content_whatever_the_name():
    seen = seen_by([ONE], {"c": "C", "d": "A", "renamed": "B", "a": "A", "e": "E"})
    assert seen == (
        Sighting("one", "d", "train", "a"),
        Sighting("one", "renamed", "tuning", "b"),
        Sighting("one", "a", "train", "a"),
    )
    assert [str(one) for one in seen] == ["d (train of one, as a)", "renamed (tuning of one, as b)", "a (train of one)"]


def test_other_content_under_a_seen_name_is_not_seen():
    assert seen_by([ONE], {"a": "new"}) == ()


def test_without_stored_content_the_name_counts():
    bare = Model("bare", Roles(train=("a",), tuning=("b",), test=("c",)))
    assert seen_by([bare], {"a": "A", "c": "C"}) == (Sighting("bare", "a", "train", "a"),)


def test_every_member_is_asked():
    other = Model("two", Roles(train=("c",), tuning=("d",), test=("a",), content_hashes={"c": "C", "d": "D"}))
    seen = seen_by([ONE, other], {"c": "C", "d": "D", "a": "A", "e": "E"})
    assert [(one.model, one.case_id, one.role) for one in seen] == [
        ("one", "a", "train"),
        ("two", "c", "train"),
        ("two", "d", "tuning"),
    ]


@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize(("subset", "label"), [("test", "test"), ("held_out", HELD_OUT), ("all", "unseen cases")])
def test_unseen_cases(subset, label, allow):
    assert label_of(subset, (), allow_seen=allow) == label


def test_tuning_on_purpose_is_optimistic():
    assert label_of("tuning", [Sighting("one", "b", "tuning", "b")], allow_seen=False) == OPTIMISTIC


@pytest.mark.parametrize(
    ("subset", "seen", "error"),
    [
        ("train", [Sighting("one", "a", "train", "a")], UsageError),
        ("all", [Sighting("one", "a", "train", "a"), Sighting("one", "b", "tuning", "b")], UsageError),
        ("test", [Sighting("one", "d", "tuning", "b")], DataError),
        ("held_out", [Sighting("two", "e", "train", "a")], DataError),
        ("tuning", [Sighting("two", "b", "train", "b"), Sighting("one", "z", "tuning", "z")], DataError),
    ],
)
def test_seen_cases_are_refused_by_model_and_name_or_marked(subset, seen, error):
    with pytest.raises(error) as raised:
        label_of(subset, seen, allow_seen=False)
    assert f"model {seen[0].model}, case {seen[0].case_id}" in str(raised.value)
    assert str(seen[0]) in str(raised.value)
    assert "allow_seen=true" in str(raised.value)
    assert label_of(subset, seen, allow_seen=True) == SEEN

import pytest

from segkit.data.splits import Roles
from segkit.errors import DataError, UsageError
from segkit.workflows.provenance import OPTIMISTIC, SEEN, label_of, seen_cases

ROLES = Roles(train=("a",), tuning=("b",), test=("c", "d"), content_hashes={"a": "A", "b": "B"})


def test_seen_by_content_whatever_the_name():
    assert seen_cases({"c": "C", "d": "A", "renamed": "B"}, ROLES) == {"d": "train", "renamed": "tuning"}


def test_other_content_under_a_seen_name_is_not_seen():
    assert seen_cases({"a": "new"}, ROLES) == {}


def test_without_stored_content_the_name_counts():
    bare = Roles(train=("a",), tuning=("b",), test=("c",))
    assert seen_cases({"a": "A", "c": "C"}, bare) == {"a": "train"}


@pytest.mark.parametrize("allow", [False, True])
def test_unseen_test_cases(allow):
    assert label_of("test", {}, allow_seen=allow) == "test"


def test_tuning_on_purpose_is_optimistic():
    assert label_of("tuning", {"b": "tuning"}, allow_seen=False) == OPTIMISTIC


@pytest.mark.parametrize(
    ("subset", "seen", "error"),
    [
        ("train", {"a": "train"}, UsageError),
        ("all", {"a": "train", "b": "tuning"}, UsageError),
        ("test", {"d": "tuning"}, DataError),
        ("tuning", {"b": "train"}, DataError),
    ],
)
def test_seen_cases_are_refused_by_name_or_marked(subset, seen, error):
    with pytest.raises(error) as raised:
        label_of(subset, seen, allow_seen=False)
    assert next(iter(seen)) in str(raised.value)
    assert "allow_seen=true" in str(raised.value)
    assert label_of(subset, seen, allow_seen=True) == SEEN

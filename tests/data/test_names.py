"""Names of cases; hostile ones are in the guarantee R14."""

import pytest

from segkit.data.names import fault_of, outside, require_usable_ids, shown_id, twice
from segkit.errors import DataError
from segkit.types import Case


def test_all_ids_that_no_file_may_have_are_told(tmp_path) -> None:
    cases = [Case(case_id, (tmp_path / "x.png",), None, case_id) for case_id in ("good", "a/b", "c\nd")]
    require_usable_ids(cases[:1])
    with pytest.raises(DataError) as caught:
        require_usable_ids(cases)
    assert "a/b: it holds a path separator" in caught.value.why
    assert r"'c\nd': it holds a control character" in caught.value.why
    assert fault_of("good") == ""


@pytest.mark.parametrize(
    ("path", "leads_out"),
    [("a/b.nii.gz", False), ("./a", False), ("a/..b", False), ("/a", True), ("a/../../b", True), ("..", True)],
)
def test_paths_out_of_a_data_set(path: str, leads_out: bool) -> None:
    assert outside(path) is leads_out


def test_names_that_are_there_twice() -> None:
    assert twice(["b", "a", "b", "c", "a", "a"]) == ["a", "b"]
    assert twice([]) == []


def test_a_name_is_shown_without_end_nor_escape() -> None:
    assert shown_id("a b") == "a b"
    assert shown_id("a\x1b[2J") == r"'a\x1b[2J'"
    assert len(shown_id("x" * 1000)) < 100

"""A report stays small: what has no room is left out, counted and told."""

import pytest

from segkit.reporting.pictures import Pictures, drawn_cases


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{number:02d}-case {number}.png" for number in range(1, 5)]
    for path in paths:
        path.write_bytes(b"x" * 100)
    return paths


def test_first_come_first_shown(files, tmp_path):
    pictures = Pictures(tmp_path, most=2)
    shown = [pictures.show(path) for path in files]
    assert [bool(one) for one in shown] == [True, True, False, False]
    assert "01-case 1.png" in shown[0]
    assert pictures.note().count("2 more pictures") == 1


def test_a_picture_that_is_too_large_leaves_room_for_the_next(files, tmp_path):
    files[1].write_bytes(b"x" * 1000)
    pictures = Pictures(tmp_path, most_bytes=250)
    assert [bool(pictures.show(path, caption="c")) for path in files] == [True, False, True, False]
    assert pictures.left_out == 2


def test_all_shown_is_nothing_told(files, tmp_path):
    pictures = Pictures(tmp_path)
    assert all(pictures.show(path) for path in files)
    assert pictures.note() == ""


def test_the_case_of_a_picture_by_its_name(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one / "01-case_a.png", one / "10-3-b.png", two / "02-case_a.png", two / "03-c.png"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = drawn_cases([one, two, tmp_path / "none"])
    assert found == {"case_a": one / "01-case_a.png", "3-b": one / "10-3-b.png", "c": two / "03-c.png"}

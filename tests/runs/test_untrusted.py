"""Files that somebody else may have put there: never waited for, never unfolded, never larger than is sane."""

import os
from pathlib import Path

import pytest
import yaml

from segkit.runs.untrusted import MAX_YAML_NODES, is_regular, parse_json, parse_yaml, read_regular


def test_a_regular_file_is_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").symlink_to("a")
    assert read_regular(tmp_path / "b", limit=3) == b"abc"
    assert is_regular(tmp_path / "a")
    assert not is_regular(tmp_path / "b")
    with pytest.raises(ValueError, match=r"3 bytes.*at most 2"):
        read_regular(tmp_path / "a", limit=2)


@pytest.mark.parametrize("name", ["fifo", "/dev/zero", "/dev/null"])
def test_what_is_no_file_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "fifo":
        os.mkfifo(path)
    with pytest.raises(ValueError, match=r"FIFO|device"):
        read_regular(path, limit=10)


def test_a_folder_and_nothing_are_errors_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path, limit=10)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "a", limit=10)


def test_deep_json_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="deeply"):
        parse_json(b"[" * 100_000)


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: [x, {c: 2.5}]\nd: null\n",
        "a: &x {b: 1}\nc: *x\nd:\n  <<: *x\n  e: 2\n",
        "",
        "a: '" + "x" * 100_000 + "'",
    ],
)
def test_plain_yaml_is_what_safe_load_makes_of_it(text: str) -> None:
    assert parse_yaml(text.encode()) == yaml.safe_load(text)


LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join(['*' + old] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        "a: &a {b: *a}",
        "a: *unknown",
        "[" * 100_000,
        "{a: " * 100_000,
        "- " * 100_000,
        "- a\n" * (MAX_YAML_NODES + 1),
        "!!python/object/apply:os.system ['x']",
        "a: !!python/name:os.system",
        "a: !!int ''",
        "a: !!bool x",
        "a: !!timestamp x",
        "a: " + "1:" * 100_000 + "1.5",
        "{[1]: 2}",
    ],
    ids=range(14),
)
def test_what_is_not_plain_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="plain YAML"):
        parse_yaml(text.encode())

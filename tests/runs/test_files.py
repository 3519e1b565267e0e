"""A file is the old one or the new one."""

import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segkit.runs import files
from segkit.runs.files import atomic_write, read_json, read_yaml, remove_tree, write_json, write_yaml


def test_write_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", "old")
    atomic_write(tmp_path / "a", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "new"


@pytest.mark.parametrize("fault", ["fsync", "replace"])
def test_failure_keeps_the_old_file(tmp_path: Path, monkeypatch, fault: str) -> None:
    atomic_write(tmp_path / "a", "old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os if fault == "fsync" else Path, fault, fail)
    with pytest.raises(OSError, match="No space"):
        atomic_write(tmp_path / "a", "new")
    monkeypatch.undo()
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "old"}


def test_umask_is_respected(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_come_back_to_the_last_bit(tmp_path_factory, value: float) -> None:
    path = tmp_path_factory.getbasetemp() / "float.json"
    path.write_text(json.dumps({"v": value}))
    assert read_json(path)["v"] == value


def test_nan_becomes_null(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": math.nan, "b": [math.inf, 1.5]})
    assert read_json(tmp_path / "a.json") == {"a": None, "b": [None, 1.5]}


@pytest.mark.parametrize("content", ["", "[1]", "{", "\xff\xfe", "[" * 100_000])
def test_what_is_no_mapping_is_a_value_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "a").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError):  # noqa: PT011  (ours, json's and unicode's)
        read_json(tmp_path / "a")


def test_yaml_keeps_order_and_executes_nothing(tmp_path: Path) -> None:
    write_yaml(tmp_path / "a", {"z": 1, "a": {"ü": [1, None, True]}})
    assert list(read_yaml(tmp_path / "a")) == ["z", "a"]
    assert read_yaml(tmp_path / "a")["a"] == {"ü": [1, None, True]}
    (tmp_path / "evil").write_text(f"a: !!python/object/apply:os.mkdir ['{tmp_path}/pwned']")
    with pytest.raises(ValueError, match="plain YAML"):
        read_yaml(tmp_path / "evil")
    assert not (tmp_path / "pwned").exists()


def test_tree_loses_its_name_before_its_files(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("x")
    seen: list[list[str]] = []
    real = files.shutil.rmtree
    monkeypatch.setattr(
        files.shutil, "rmtree", lambda path: (seen.append([p.name for p in tmp_path.iterdir()]), real(path))
    )
    remove_tree(tmp_path / "tree")
    assert seen == [[f".tree.{os.getpid()}.trash"]]
    assert list(tmp_path.iterdir()) == []

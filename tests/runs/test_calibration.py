"""A temperature is that of certain models, and of no others."""

import json
from pathlib import Path
from typing import Any

import pytest

from segkit.errors import StorageError, UsageError
from segkit.runs.calibration import FILE, temperature_of

A = {"run": "a", "checkpoint": 100, "step": 0.5, "mirror_axes": [0]}
B = {"run": "b", "checkpoint": 200, "step": 0.5, "mirror_axes": [0]}


def stored(folder: Path, **changes: Any) -> Path:
    (folder / FILE).write_text(json.dumps({"temperature": 1.25, "models": [A, B]} | changes))
    return folder


def test_it_comes_back_for_these_models_in_any_order(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    assert temperature_of(folder, [A, B]) == 1.25
    assert temperature_of(folder, [B | {"reason": "x"}, A | {"mirror_axes": (0,)}]) == 1.25


@pytest.mark.parametrize(
    "others",
    [[A], [A, B, B], [A, B | {"checkpoint": 300}], [A, B | {"step": 0.25}], [A, B | {"mirror_axes": []}], []],
)
def test_other_models_have_none(tmp_path: Path, others: list[dict[str, Any]]) -> None:
    with pytest.raises(UsageError, match="other models") as raised:
        temperature_of(stored(tmp_path), others)
    assert "a at step 100" in str(raised.value)


def test_without_a_calibration(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"segkit\.calibrate"):
        temperature_of(tmp_path, [A])


@pytest.mark.parametrize(
    "changes",
    [{"temperature": None}, {"temperature": 0}, {"temperature": -1.0}, {"temperature": True}, {"temperature": "1"},
     {"models": None}, {"models": ["a"]}],
)  # fmt: skip
def test_what_cannot_be_understood_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(StorageError, match="cannot be understood"):
        temperature_of(stored(tmp_path, **changes), [A, B])


def test_half_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"temperature": 1.')
    with pytest.raises(StorageError, match="cannot be understood"):
        temperature_of(tmp_path, [A, B])

"""A full disk is a full disk, whoever wrote to it."""

import errno
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from segkit.runs.system_errors import as_the_system_said

TENSORS = {"w": torch.zeros(100_000)}


def save(name: Path, buffering: int) -> None:
    with as_the_system_said(name), Path("/dev/full").open("wb", buffering=buffering) as file:
        torch.save(TENSORS, file)


def test_torchs_own_error_is_the_systems(tmp_path: Path) -> None:
    for buffering in (0, -1):  # without a buffer the system speaks through torch, with one when it is closed
        with pytest.raises(OSError, match="No space left") as full:
            save(tmp_path / "name", buffering)
        assert (full.value.errno, full.value.filename) == (errno.ENOSPC, str(tmp_path / "name"))


def test_safetensors_own_error_is_the_systems(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as absent, as_the_system_said(tmp_path / "name"):
        save_file(TENSORS, tmp_path / "absent" / "name")
    assert absent.value.errno == errno.ENOENT
    with pytest.raises(OSError, match="No space left"), as_the_system_said(tmp_path / "name"):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_any_other_error_goes_its_way(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a bug"), as_the_system_said(tmp_path / "name"):
        raise RuntimeError("a bug")
    with pytest.raises(SafetensorError, match="shared"), as_the_system_said(tmp_path / "name"):
        raise SafetensorError("tensors are shared")

"""Tensors come back to the bit; how evil files are refused is held by the guarantee R13."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from segkit.errors import StorageError
from segkit.runs.tensors import load_plain, load_tensors


def test_what_torch_saves_comes_back(tmp_path: Path) -> None:
    value = {"a": torch.randn(3, 4), "b": [1, 2.5, None, "x"], "c": {"d": torch.arange(5, dtype=torch.int64)}}
    torch.save(value, tmp_path / "a.pt")
    found = load_plain(tmp_path / "a.pt")
    assert torch.equal(found["a"], value["a"])
    assert found["b"] == value["b"]
    assert torch.equal(found["c"]["d"], value["c"]["d"])


def test_what_safetensors_saves_comes_back(tmp_path: Path) -> None:
    value = {"a": torch.randn(3, 4)}
    save_file(value, tmp_path / "a.safetensors")
    assert torch.equal(load_tensors(tmp_path / "a.safetensors")["a"], value["a"])


@pytest.mark.parametrize("load", [load_plain, load_tensors])
def test_what_is_missing_or_no_such_file_is_named(tmp_path: Path, load) -> None:
    (tmp_path / "text").write_text("x" * 100)
    for name in ("text", "nothing"):
        with pytest.raises(StorageError, match=name) as caught:
            load(tmp_path / name)
        assert caught.value.exit_code == 74


@pytest.mark.parametrize("named", [(), [(print, "nobody.says_so")]])
def test_a_tensor_larger_than_its_storage_is_refused(tmp_path: Path, named) -> None:
    """Strides of zero make terabytes of four bytes; who looks at the numbers would have to make them."""
    torch.save({"state": {0: {"exp_avg": torch.zeros(1).expand(2**40)}}}, tmp_path / "optimizer.pt")
    with pytest.raises(StorageError, match=r"state\.0\.exp_avg \(1099511627776,\) is no dense tensor"):
        load_plain(tmp_path / "optimizer.pt", named=named)

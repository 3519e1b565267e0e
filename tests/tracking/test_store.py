"""Addresses of stores, explicit and absolute."""

from pathlib import Path

import pytest

from segkit.errors import UsageError
from segkit.tracking.store import first_open, store_uri


def test_store_uri(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert store_uri("runs/mlflow.db") == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert store_uri("sqlite:///x.db") == f"sqlite:///{tmp_path}/x.db"
    assert store_uri("sqlite:////abs/x.db") == "sqlite:////abs/x.db"
    assert store_uri("http://127.0.0.1:5000") == "http://127.0.0.1:5000"
    (tmp_path / "mlruns").mkdir()
    for old in ("mlruns", "file:./mlruns"):
        with pytest.raises(UsageError, match="file store"):
            store_uri(old)


def test_first_open_makes_the_folder(tmp_path: Path) -> None:
    with first_open(store_uri(tmp_path / "a" / "b" / "mlflow.db")):
        assert list(tmp_path.rglob("*")) == [tmp_path / "a", tmp_path / "a" / "b"]

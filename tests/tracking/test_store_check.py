import sqlite3

import pytest

from segkit.errors import StorageError, UsageError
from segkit.tracking import store_check
from segkit.tracking.store_check import store_status


@pytest.fixture
def quick(monkeypatch):
    """Without the round trip, which makes MLflow's tables and takes seconds."""
    monkeypatch.setattr(store_check, "_round_trip", lambda folder: None)


def test_a_store_that_is_not_there_yet_is_not_made(quick, tmp_path):
    assert "will be made" in store_status(tmp_path / "runs" / "mlflow.db")
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_there_is_left_as_it_was(quick, tmp_path):
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as store:
        store.execute("CREATE TABLE t (x)")
    before = path.read_bytes()
    assert "can be written" in store_status(path)
    assert path.read_bytes() == before


def test_a_locked_store_is_a_storage_error(quick, monkeypatch, tmp_path):
    monkeypatch.setattr(store_check, "_LOCK_SECONDS", 0.05)
    path = tmp_path / "mlflow.db"
    holder = sqlite3.connect(path)
    holder.execute("CREATE TABLE t (x)")
    holder.commit()
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StorageError, match="locked"):
        store_status(path)
    holder.close()


def test_a_file_that_is_no_database_is_a_storage_error(quick, tmp_path):
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"not a database, certainly not one" * 40)
    with pytest.raises(StorageError, match="not a database"):
        store_status(path)


def test_the_old_file_store_is_refused(quick, tmp_path):
    with pytest.raises(UsageError):
        store_status(tmp_path)

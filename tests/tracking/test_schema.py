import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from segkit.tracking import schema
from segkit.tracking.schema import make_tables

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and SQLAlchemy's own


def test_what_fails_half_way_leaves_no_store_and_what_is_made_mlflow_opens(tmp_path: Path, monkeypatch):
    """One test, since tables take seconds."""
    store = tmp_path / "mlflow.db"

    def half(engine) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE half (x INTEGER)")
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(schema.utils, "_initialize_tables", half)
        with pytest.raises(OSError, match="full"):
            make_tables(store)
    assert list(tmp_path.iterdir()) == []

    make_tables(store)
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
    with closing(sqlite3.connect(store)) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (0,)
    client = MlflowClient(tracking_uri=f"sqlite:///{store}")
    made = client.create_experiment("kept", artifact_location=tmp_path.as_uri())
    make_tables(store)
    assert client.get_experiment(made).name == "kept"

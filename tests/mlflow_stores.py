"""sqlite stores of MLflow that are there at once, and what is in them."""

import contextlib
import functools
import sqlite3
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from segkit.runs.directory import RunDirectory
from segkit.tracking.journal import CLOCK, Journal, read_rows
from segkit.tracking.names import by_epoch

Points = list[tuple[str, int, float]]


@functools.cache
def _template() -> bytes:
    """An empty store: importing MLflow and making its tables takes seconds, so once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations within MLflow
        from segkit.tracking.connection import MlflowClient  # by way of segkit, which turns telemetry off first

        with tempfile.TemporaryDirectory() as folder:
            MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db").search_experiments(max_results=1)
            return (Path(folder) / "mlflow.db").read_bytes()


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Path]:
    """Factory: `make_store("name.db")` is an empty store below tmp_path; an existing one is emptied."""

    def make(name: str = "mlflow.db") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_template())
        return path

    return make


def record(run: RunDirectory, steps: range, *, factor: float = 1.0) -> Journal:
    """Journals of a run with two steps an epoch."""
    journal = Journal(run.metrics, run.timings)
    for step in steps:
        journal.metrics({"train/loss": factor / step}, n=2 * step, step=step, epoch=(step + 1) // 2)
        if step % 2 == 0:
            journal.metrics({"val/score": factor * step / 10}, n=2 * step, step=step, epoch=step // 2)
            journal.timing({"time/epoch_s": 1.5}, n=2 * step, step=step, epoch=step // 2)
    return journal


def in_journal(run: RunDirectory, *, timings: bool = True) -> Points:
    """What MLflow must have of a run."""
    rows = [row for path in (run.metrics, *((run.timings,) if timings else ())) for row in read_rows(path)]
    return sorted((r.key, r.epoch if by_epoch(r.key) else r.step, r.value) for r in rows if r.key != CLOCK)


def in_store(store: Path, run_id: str | None = None, *, without: tuple[str, ...] = ("selected/", "test/")) -> Points:
    """What MLflow's tables have of a run, or of the only one."""
    query = "SELECT key, step, value FROM metrics" + (" WHERE run_uuid = ?" if run_id else "")
    with contextlib.closing(sqlite3.connect(store)) as connection:
        found = connection.execute(query, (run_id,) if run_id else ()).fetchall()
    return sorted(point for point in found if not point[0].startswith(without))


def select(store: Path, query: str, *values: object) -> list[tuple]:
    """Rows of any query."""
    with contextlib.closing(sqlite3.connect(store)) as connection:
        return connection.execute(query, values).fetchall()


def doubles(store: Path) -> list[tuple]:
    """Every (run, key, step) with more than one point."""
    return select(
        store,
        "SELECT run_uuid, key, step, count(*) FROM metrics GROUP BY run_uuid, key, step HAVING count(*) > 1",
    )


def tags(store: Path, run_id: str) -> dict[str, str]:
    """Tags of a run."""
    return dict(select(store, "SELECT key, value FROM tags WHERE run_uuid = ?", run_id))


def params(store: Path, run_id: str) -> dict[str, str]:
    """Params of a run."""
    return dict(select(store, "SELECT key, value FROM params WHERE run_uuid = ?", run_id))


def status(store: Path, run_id: str) -> str:
    """Status of a run."""
    return select(store, "SELECT status FROM runs WHERE run_uuid = ?", run_id)[0][0]

"""Whether MLflow's store can be written, found out without leaving anything in it."""

import logging
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from segkit.errors import StorageError
from segkit.tracking.brief import BriefRequests
from segkit.tracking.store import refuse_network_drive, shown, store_uri

_SCHEME = "sqlite:///"
_LOCK_SECONDS = 5.0


def store_status(store: str | Path) -> str:
    """What is known of the store, in a sentence.

    A sqlite store that is there is locked for writing and released again. A run with one metric is then written to
    and read from a store of its own beside it, which is removed. A server is asked for its experiments.

    Args:
        store: Path of the sqlite file, or a server's address.

    Raises:
        StorageError: It cannot be opened or written.
        UsageError: It is of a kind that MLflow no longer opens, or a sqlite file on a network drive.
    """
    uri = store_uri(store)
    brief = BriefRequests()
    try:
        if not uri.startswith(_SCHEME):
            MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
            return f"{shown(uri)} answers"
        path = Path(uri.removeprefix(_SCHEME))
        refuse_network_drive(path)
        if path.exists():
            _lock_for_writing(path)
        _round_trip(_nearest_folder(path.parent))
    except (MlflowException, sqlite3.Error, OSError) as error:
        raise StorageError(
            "MLflow's store cannot be written.",
            where=shown(uri),
            why=str(error),
            mend="paths.mlflow=<a file on a disk that you may write to>, or tracking=none",
        ) from error
    finally:
        brief.end()
    return f"{path} " + ("can be written" if path.exists() else "will be made")


def _lock_for_writing(path: Path) -> None:
    """Take and release sqlite's write lock; `mode=rw` makes no file where there is none."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=_LOCK_SECONDS)) as store:
        store.execute("BEGIN IMMEDIATE")
        store.execute("ROLLBACK")


def _round_trip(folder: Path) -> None:
    """Write a metric to a store of its own in `folder` and read it back."""
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # it announces every table it makes
    with tempfile.TemporaryDirectory(prefix=".segkit-doctor-", dir=folder) as scratch:
        client = MlflowClient(tracking_uri=f"{_SCHEME}{scratch}/mlflow.db")
        experiment = client.create_experiment("doctor", artifact_location=f"{scratch}/artifacts")
        run = client.create_run(experiment).info.run_id
        client.log_metric(run, "probe", 0.5)
        found = client.get_run(run).data.metrics
        if found != {"probe": 0.5}:
            raise OSError(f"wrote probe=0.5 and read {found}")


def _nearest_folder(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(candidate for candidate in (folder, *folder.parents) if candidate.is_dir())

"""Bring the copy of a run that nobody trains, or of a sweep, up to date, and say what that took."""

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from segkit.errors import RunInUseError, StorageError
from segkit.runs.directory import RunDirectory
from segkit.runs.sweep import SweepDirectory
from segkit.tracking.brief import BriefRequests
from segkit.tracking.folder import ending_of
from segkit.tracking.mlflow import MlflowCopy
from segkit.tracking.record import keep_alone
from segkit.tracking.store import shown, store_uri
from segkit.tracking.sweep import WAIT_S, open_sweep_copy


@dataclass(frozen=True)
class Mirrored:
    """A copy that is complete.

    Args:
        run_id: MLflow's id.
        status: MLflow's word for how the run ended.
        sent: Points sent just now.
        uri: Where, without a password.
    """

    run_id: str
    status: str
    sent: int
    uri: str


def mirror(folder: RunDirectory | SweepDirectory, *, store: str | Path, experiment: str) -> Mirrored:
    """Make the copy equal to the folder.

    Args:
        folder: Of the run, or of the sweep, whose runs are not looked at.
        store: Path of the sqlite file, or a server's address.
        experiment: MLflow's experiment.

    Raises:
        RunInUseError: The run is being trained, or its copy is being made, by another process.
        UsageError: The store is of a kind, or on a drive, that cannot be used.
        StorageError: The store cannot be reached, or does not take what it is given.
    """
    if isinstance(folder, RunDirectory) and (holder := folder.holder()) is not None:
        raise RunInUseError(
            "The run is in use.",
            where=str(folder.path),
            why=f"held by {holder}",
            mend="nothing is needed: while it is trained it keeps its copy itself",
        )
    uri = store_uri(store)
    brief = BriefRequests()
    try:
        return _run(folder, uri, experiment) if isinstance(folder, RunDirectory) else _sweep(folder, uri, experiment)
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, json.JSONDecodeError) as error:
        raise StorageError(
            "MLflow's store cannot be reached, or does not take the run.",
            where=shown(uri),
            why=shown(" ".join(f"{type(error).__name__}: {error}".split()))[:500],
            mend=f"the run folder has everything; when the store answers: python -m segkit.sync run={folder.path}",
        ) from error
    finally:
        brief.end()


def _run(run: RunDirectory, uri: str, experiment: str) -> Mirrored:
    with keep_alone(run.path):
        copy = MlflowCopy(run, store=uri, experiment=experiment)
        return Mirrored(sent=copy.rebuild(), run_id=copy.run_id, status=ending_of(run)[0], uri=shown(uri))


def _sweep(sweep: SweepDirectory, uri: str, experiment: str) -> Mirrored:
    with keep_alone(sweep.path, wait_s=WAIT_S):
        copy = open_sweep_copy(sweep, store=uri, experiment=experiment)
        sent, status = copy.rebuild()
        return Mirrored(sent=sent, run_id=copy.run_id, status=status, uri=shown(uri))

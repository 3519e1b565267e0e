"""Which experiment and which MLflow run are meant, made where they are missing."""

import logging
from collections.abc import Collection
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from segkit.runs.directory import RunDirectory
from segkit.tracking.facts import load_facts
from segkit.tracking.folder import times
from segkit.tracking.names import plain_key
from segkit.tracking.record import Record
from segkit.tracking.store import sqlite_file

_logger = logging.getLogger(__name__)


def find_experiment(client: MlflowClient, uri: str, name: str) -> str:
    """Id of the experiment; its artifacts lie beside a sqlite store, else where the server keeps them."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    store: Path | None = sqlite_file(uri)
    where = None
    if store is not None:  # else MLflow would make ./mlruns wherever the process stands
        where = (store.parent / "mlartifacts" / plain_key(name).replace("/", "-")).as_uri()
    return str(client.create_experiment(name, artifact_location=where))


def find_run(client: MlflowClient, run: RunDirectory, record: Record, experiment_id: str) -> str:
    """Id of the run's copy; empty where it has none.

    It is the one of the record, or one made by a life that was killed before it could write the id down.
    """
    if record.run_id:
        if is_there(client, record.run_id):
            return record.run_id
        _logger.warning("MLflow has no run %s (any more): a new copy is made.", record.run_id)
    training = load_facts(run).id
    return find_by_id(client, experiment_id, training, given_up={record.run_id, *record.superseded}) if training else ""


def find_by_id(client: MlflowClient, experiment_id: str, known: str, *, given_up: Collection[str] = ()) -> str:
    """Id of the MLflow run that carries an id of ours; empty where there is none but those given up."""
    found = client.search_runs([experiment_id], f"tags.`segkit.id` = '{known}'")
    return next((str(one.info.run_id) for one in found if one.info.run_id not in given_up), "")


def create_run(client: MlflowClient, run: RunDirectory, experiment_id: str, *, name: str, parent: str = "") -> str:
    """Id of a new MLflow run, which begins when the run began.

    Args:
        client: Of the store.
        run: The run folder.
        experiment_id: Where to.
        name: Of the new one.
        parent: MLflow run of the sweep that it belongs to.
    """
    training, clock = load_facts(run).id, times(run)
    tags = {"segkit.id": training} if training else {}
    tags |= {"mlflow.parentRunId": parent} if parent else {}
    started = min(clock.values(), default=None)
    made = client.create_run(experiment_id, run_name=name, tags=tags, start_time=started)
    return str(made.info.run_id)


def is_there(client: MlflowClient, run_id: str) -> bool:
    """Whether the store has the run, and it was not deleted."""
    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        return False

"""The way into a store: its tables and the experiment made where they are missing, by one process at a time."""

from mlflow import MlflowClient

from segkit.tracking.identity import find_experiment
from segkit.tracking.schema import make_tables
from segkit.tracking.store import check_sqlite, first_open, sqlite_file


def connect(uri: str, experiment: str) -> tuple[MlflowClient, str]:
    """A client of the store, and MLflow's id of the experiment.

    Args:
        uri: Tracking URI.
        experiment: MLflow's experiment; made where it is missing.

    Raises:
        UsageError: The store is on a drive that cannot be used.
        sqlite3.Error: It is no sqlite file, or locked for too long.
    """
    with first_open(uri):
        check_sqlite(uri)
        if file := sqlite_file(uri):
            make_tables(file)
        client = MlflowClient(tracking_uri=uri)
        return client, find_experiment(client, uri, experiment)

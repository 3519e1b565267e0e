"""Files of a folder as artifacts of its MLflow run: each content once."""

from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient

from segkit.runs.files import sha256
from segkit.tracking.record import Record


def send_files(client: MlflowClient, record: Record, files: Sequence[tuple[Path, str]], *, path: Path) -> None:
    """Copy files to their names there, unless the same content was copied before.

    Args:
        client: Of the store.
        record: Which MLflow run, and what has arrived there; what arrives is noted, also when a later file fails.
        files: Each file and its name there.
        path: Of the record.
    """
    before = dict(record.artifacts)
    try:
        for file, name in files:
            content = sha256(file)
            if record.artifacts.get(name) != content:
                client.log_artifact(record.run_id, str(file), name.rpartition("/")[0] or None)
                record.artifacts[name] = content
    finally:
        if record.artifacts != before:
            record.save(path)

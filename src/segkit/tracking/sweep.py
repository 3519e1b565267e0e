"""The parent of a sweep's runs in MLflow: jobs of `--multirun`, the folds of a cross-validation.

A run belongs to the sweep in whose folder it lies: Hydra writes multirun.yaml there before the first job. The parent
is made by the first job that reaches MLflow, so a store that is down stops no sweep, and `segkit sync` makes it too.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from segkit.errors import RunInUseError
from segkit.runs.directory import RunDirectory
from segkit.runs.files import read_yaml
from segkit.tracking.folder import ending_of, is_running
from segkit.tracking.identity import is_there
from segkit.tracking.record import Record, keep_alone

_WAIT_S = 30.0


class SweepRun:
    """MLflow's run of a sweep.

    Args:
        client: Of the store.
        folder: Of the sweep; its mlflow.json says which MLflow run it is.
        record: As read from there.
    """

    def __init__(self, client: MlflowClient, folder: Path, record: Record) -> None:
        self._client, self._folder, self.run_id = client, folder, record.run_id

    def begin(self) -> None:
        """A job begins."""
        self._client.update_run(self.run_id, status="RUNNING")

    def update(self) -> None:
        """Its status, by its jobs: running while one does, else failed or killed if one is."""
        jobs = [RunDirectory(path.parent) for path in self._folder.glob("*/STATUS.json")]
        states = {"RUNNING" if is_running(job) else ending_of(job)[0] for job in jobs}
        status = next((word for word in ("RUNNING", "FAILED", "KILLED") if word in states), "FINISHED")
        if status == "RUNNING":
            self.begin()
        else:
            self._client.set_terminated(self.run_id, status)


def parent_of(client: MlflowClient, run: RunDirectory, uri: str, experiment_id: str) -> SweepRun | None:
    """MLflow's run of the sweep that `run` belongs to, made where it is missing; None for a run of its own."""
    folder = run.path.parent
    if not (folder / "multirun.yaml").is_file():
        return None
    with _patiently(folder):
        path = folder / "mlflow.json"
        record = Record.load(path, uri)
        if not record.run_id or not is_there(client, record.run_id):
            swept = swept_words(folder)
            note = f"Sweep over {', '.join(swept)}" if swept else "Sweep"
            tags = {"segkit.sweep": " ".join(swept), "mlflow.note.content": f"{note}.\n\nFolder: `{folder}`"}
            made = client.create_run(experiment_id, run_name=folder.name, tags=tags)
            record = Record(uri, run_id=str(made.info.run_id), experiment_id=experiment_id)
            record.save(path)
    return SweepRun(client, folder, record)


def swept_words(folder: Path) -> list[str]:
    """What was swept, as it was typed."""
    try:
        hydra: Any = read_yaml(folder / "multirun.yaml")["hydra"]
        return [str(word) for word in hydra["overrides"]["task"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


@contextlib.contextmanager
def _patiently(folder: Path) -> Iterator[None]:
    """Alone with the sweep's record; other jobs hold it for the time of a request."""
    until = time.monotonic() + _WAIT_S
    while True:
        stack = contextlib.ExitStack()
        try:
            stack.enter_context(keep_alone(folder))
            break
        except RunInUseError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
    with stack:
        yield

"""The parent of a sweep's runs in MLflow: jobs of `--multirun`, the folds of a cross-validation.

A run belongs to the sweep in whose folder it lies, see `SweepDirectory.members`. The parent is made by the first job
that reaches MLflow, so a store that is down stops no sweep, and `segkit sync` makes it too. It holds what is known of
the runs together: the scores of all folds out of fold, those of their ensemble, the tables, the report.

One MLflow run for the life of a sweep: its id lies in the sweep's folder, and it carries an id that is written there
before it is made, so that one made by a process that was then killed is found again.
"""

import uuid
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import RunTag

from segkit.runs.directory import RunDirectory
from segkit.runs.files import read_json, write_json
from segkit.runs.sweep import SweepDirectory
from segkit.tracking.artifacts import send_files
from segkit.tracking.connection import connect
from segkit.tracking.folder import ending_of, files_of_sweep, fingerprint_of_sweep, is_running
from segkit.tracking.identity import find_by_id, is_there
from segkit.tracking.names import TAG_LENGTH
from segkit.tracking.privacy import Privacy, privacy_of
from segkit.tracking.record import Record, keep_alone
from segkit.tracking.scores import scores_of_sweep, send_scores
from segkit.tracking.store import store_uri

WAIT_S = 30.0
"""How long the record of a sweep is waited for, s: jobs hold it for the time of a request or two."""
_PARENT = "mlflow.parentRunId"


class SweepCopy:
    """MLflow's run of a sweep.

    Args:
        client: Of the store.
        sweep: Its folder; its mlflow.json says which MLflow run it is.
        record: As read from there.
    """

    def __init__(self, client: MlflowClient, sweep: SweepDirectory, record: Record) -> None:
        self._client, self.sweep, self.record = client, sweep, record

    @property
    def run_id(self) -> str:
        """MLflow's id of the copy."""
        return self.record.run_id

    def begin(self) -> None:
        """A job begins."""
        self._client.update_run(self.run_id, status="RUNNING")

    def update(self) -> str:
        """Its status, by its jobs: running while one does, else failed or killed if one is; it ended with the last."""
        found = list(self.sweep.path.glob("*/STATUS.json"))
        jobs = [RunDirectory(path.parent) for path in found]
        states = {"RUNNING" if is_running(job) else ending_of(job)[0] for job in jobs}
        status = next((word for word in ("RUNNING", "FAILED", "KILLED") if word in states), "FINISHED")
        if status == "RUNNING":
            self.begin()
        else:
            ended = max((int(path.stat().st_mtime * 1000) for path in found), default=None)
            self._client.set_terminated(self.run_id, status, end_time=ended)
        return status

    def rebuild(self) -> tuple[int, str]:
        """Make the copy from nothing but the folder; what is there is not sent twice. For who holds `keep_alone`.

        Returns:
            The number of points sent, and the status.
        """
        at = fingerprint_of_sweep(self.sweep)  # before: what changes meanwhile is not in it
        self._adopt()
        sent = send_scores(self._client, self.run_id, scores_of_sweep(self.sweep))
        with privacy_of(self.sweep, self.record.uri).files(files_of_sweep(self.sweep)) as files:
            send_files(self._client, self.record, files, path=self.sweep.mlflow)
        tags = [RunTag(key, value[:TAG_LENGTH]) for key, value in self._tags().items()]
        self._client.log_batch(self.run_id, tags=tags)
        status = self.update()
        self.record.complete = at
        self.record.save(self.sweep.mlflow)
        return sent, status

    def _adopt(self) -> None:
        """Runs that were copied before they became a sweep, or whose parent was made again, get their parent."""
        for run in self.sweep.members:
            copy = Record.load(run.mlflow, self.record.uri).run_id
            if copy and is_there(self._client, copy):
                self._client.set_tag(copy, _PARENT, self.run_id)

    def _tags(self) -> dict[str, str]:
        """What the scores of all folds call themselves, and of whom they are."""
        tags = {"segkit.sweep": " ".join(_swept(self.sweep, privacy_of(self.sweep, self.record.uri)))}
        try:
            summary = read_json(self.sweep.evaluation / "test" / "summary.json")
            facts = {"label": summary["label"], "cases": summary["n_cases"], "people": summary["n_groups"]}
            return tags | {f"segkit.{name}": str(value) for name, value in facts.items()}
        except (OSError, ValueError, KeyError):
            return tags


def parent_of(client: MlflowClient, run: RunDirectory, uri: str, experiment_id: str) -> SweepCopy | None:
    """MLflow's run of the sweep that `run` belongs to, made where it is missing; None for a run of its own."""
    sweep = SweepDirectory(run.path.parent)
    if not sweep.holds(run):
        return None
    with keep_alone(sweep.path, wait_s=WAIT_S):
        return _find_or_create(client, sweep, uri, experiment_id)


def open_sweep_copy(sweep: SweepDirectory, *, store: str | Path, experiment: str) -> SweepCopy:
    """MLflow's run of a sweep, made where it is missing. For who holds `keep_alone`.

    Args:
        sweep: Its folder.
        store: Path of the sqlite file, or a server's address.
        experiment: MLflow's experiment; made where it is missing.

    Raises:
        UsageError: The store is of a kind, or on a drive, that cannot be used.
    """
    uri = store_uri(store)
    client, experiment_id = connect(uri, experiment)
    return _find_or_create(client, sweep, uri, experiment_id)


def _find_or_create(client: MlflowClient, sweep: SweepDirectory, uri: str, experiment_id: str) -> SweepCopy:
    record = Record.load(sweep.mlflow, uri)
    if not record.run_id or not is_there(client, record.run_id):
        known = _identity(sweep)
        found = find_by_id(client, experiment_id, known, given_up={record.run_id})
        run_id = found or _create(client, sweep, experiment_id, known, privacy_of(sweep, uri))
        record = Record(uri, run_id=run_id, experiment_id=experiment_id)
        record.save(sweep.mlflow)
    return SweepCopy(client, sweep, record)


def _create(client: MlflowClient, sweep: SweepDirectory, experiment_id: str, known: str, privacy: Privacy) -> str:
    swept = _swept(sweep, privacy)
    note = f"Sweep over {', '.join(swept)}" if swept else "Runs that were evaluated together"
    folder = privacy.text(f"Folder: `{sweep.path}`")
    tags = {"segkit.id": known, "mlflow.note.content": f"{note}.\n\n{folder}", "segkit.sweep": " ".join(swept)}
    made = client.create_run(experiment_id, run_name=privacy.text(sweep.name), tags=tags)
    return str(made.info.run_id)


def _swept(sweep: SweepDirectory, privacy: Privacy) -> list[str]:
    return [privacy.override(word) for word in sweep.swept]


def _identity(sweep: SweepDirectory) -> str:
    """Names the sweep itself, whatever its folder is called."""
    try:
        return str(read_json(sweep.tracking)["id"])
    except (OSError, ValueError, KeyError):
        known = uuid.uuid4().hex
        write_json(sweep.tracking, {"id": known})
        return known

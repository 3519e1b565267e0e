"""The copy of a run in MLflow: rebuilt from the run folder at any time, never the other way round.

One MLflow run for the life of a segkit run: its id lies in the run folder. A (key, step) is sent only if MLflow has
none, so a resumed run continues its curves without doubles. Params are logged once; what changes later becomes the
tag `param_drift`. Checkpoints become LoggedModels made of safetensors and JSON: nothing is pickled.

Every method may raise; who must not be disturbed uses `segkit.tracking.uploader`.
"""

import json
import logging
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from segkit.runs.directory import RunDirectory
from segkit.runs.files import read_json, sha256, write_json
from segkit.runs.manifest import MODEL, Entry
from segkit.tracking.journal import CLOCK, read_rows
from segkit.tracking.names import TAG_LENGTH, by_epoch, flat, plain_key
from segkit.tracking.store import first_open, store_uri

Ending = Literal["FINISHED", "FAILED", "KILLED"]
_BATCH = 100
_METRICS = 1000
_logger = logging.getLogger(__name__)


class MlflowCopy:
    """One run's copy.

    Args:
        run: The run folder.
        store: Path of the sqlite file, or a server's address.
        experiment: MLflow's experiment; made where it is missing.
        parent: MLflow run id of the sweep or cross-validation that this run belongs to.
    """

    def __init__(
        self, run: RunDirectory, *, store: str | Path, experiment: str = "segkit", parent: str | None = None
    ) -> None:
        self.run, self.uri, self.experiment, self.parent = run, store_uri(store), experiment, parent
        self._sent: dict[str, set[int]] | None = None
        self._artifacts: dict[str, str] = {}
        with first_open(self.uri):
            self._client = MlflowClient(tracking_uri=self.uri)
            self.experiment_id = self._experiment()
        self.run_id = self._known_run() or self._new_run()

    def begin(self, config: Mapping[str, Any], *, tags: Mapping[str, str] | None = None) -> None:
        """Say that a life of the run begins: status, params (the first time), tags.

        Args:
            config: The resolved configuration.
            tags: Facts that may change from life to life: commit, host, device, data set.
        """
        self._client.update_run(self.run_id, status="RUNNING")
        self._params(flat(config))
        data = self._client.get_run(self.run_id).data
        lives = int(data.tags.get("segkit.lives", "0")) + 1
        self._tag({**(tags or {}), "segkit.lives": str(lives), "segkit.run": self.run.name})

    def sync(self) -> int:
        """Send what the journals have and MLflow has not.

        Returns:
            The number of points sent.
        """
        sent = self._sent if self._sent is not None else self._sent_before()
        self._sent = sent
        clock = {row.n: int(row.value * 1000) for row in read_rows(self.run.timings) if row.key == CLOCK}
        points = []
        for path in (self.run.metrics, self.run.timings):
            for row in read_rows(path):
                step = row.epoch if by_epoch(row.key) else row.step
                if row.key != CLOCK and step not in sent.setdefault(plain_key(row.key), set()):
                    sent[plain_key(row.key)].add(step)
                    points.append(Metric(plain_key(row.key), row.value, clock.get(row.n, 0), step))
        try:
            for start in range(0, len(points), _METRICS):
                self._client.log_batch(self.run_id, metrics=points[start : start + _METRICS])
        except BaseException:
            self._sent = None  # what arrived is not known: ask again the next time
            raise
        return len(points)

    def artifact(self, path: Path, *, folder: str | None = None) -> None:
        """Copy a file or a folder of files, unless the same content was copied in this life."""
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            inner = file.parent.relative_to(path.parent) if path.is_dir() else Path()
            target = "/".join(part for part in (folder or "", inner.as_posix()) if part not in {"", "."}) or None
            name, content = f"{target}/{file.name}", sha256(file)
            if self._artifacts.get(name) != content:
                self._client.log_artifact(self.run_id, str(file), target)
                self._artifacts[name] = content

    def dataset(self, name: str, *, digest: str, source: str, context: Literal["training", "validation"]) -> None:
        """Name the data of the run, once a context.

        Args:
            name: Name of the data set.
            digest: Fingerprint of its content; its first 36 characters are kept.
            source: Where it lies.
            context: What it is used for.
        """
        inputs = self._client.get_run(self.run_id).inputs
        for known in inputs.dataset_inputs if inputs is not None else ():
            if any(tag.value == context for tag in known.tags) and known.dataset.digest == digest[:36]:
                return
        data = Dataset(name[:500], digest[:36], "local", json.dumps({"uri": source}))
        self._client.log_inputs(self.run_id, [DatasetInput(data, [InputTag("mlflow.data.context", context)])])

    def model(self, checkpoint: Path, entry: Entry, *, reason: str, files: Sequence[Path] = ()) -> str:
        """Copy the weights of a selected checkpoint as a LoggedModel, once a step.

        Args:
            checkpoint: Its folder.
            entry: What it stands for.
            reason: Why it was selected.
            files: What is needed beside the weights: config.yaml, plan.json.

        Returns:
            The model's id.
        """
        record = read_json(self.run.mlflow)
        known: dict[str, str] = record.get("models", {})
        if str(entry.step) in known:
            return known[str(entry.step)]
        model = self._client.create_logged_model(
            self.experiment_id,
            name=plain_key(f"{self.run.name}-step-{entry.step}").replace("/", "-").replace(":", "-").replace(".", "-"),
            source_run_id=self.run_id,
            params={"step": str(entry.step), "epoch": str(entry.epoch), "samples": str(entry.n)},
            tags={"segkit.reason": reason[:TAG_LENGTH], "segkit.weights_sha256": sha256(checkpoint / MODEL)},
            model_type="segkit",
        )
        with tempfile.TemporaryDirectory(dir=self.run.path, prefix=".model-") as folder:
            for file in (checkpoint / MODEL, *files):
                _link(file, Path(folder) / file.name)
            self._client.log_model_artifacts(model.model_id, folder)
        self._client.log_outputs(self.run_id, [LoggedModelOutput(model.model_id, step=entry.epoch)])
        data = self._data("validation")
        for key, value in self._selected(entry).items():
            self._client.log_metric(
                self.run_id, key, value, step=entry.epoch, model_id=model.model_id, dataset_name=data[0],
                dataset_digest=data[1],
            )  # fmt: skip
        self._client.finalize_logged_model(model.model_id, "READY")
        write_json(self.run.mlflow, {**record, "models": {**known, str(entry.step): model.model_id}})
        return str(model.model_id)

    def end(self, status: Ending, *, reason: str = "") -> None:
        """Bring the copy up to date and say how this life ended.

        Args:
            status: MLflow's word for it. A preempted run is KILLED, with the reason as a tag.
            reason: Why it ended.
        """
        self.sync()
        self._tag({"segkit.ended": reason or status.lower()})
        self._client.set_terminated(self.run_id, status)

    def _selected(self, entry: Entry) -> dict[str, float]:
        """Score and Dice, by class too, of exactly these weights, as `selected/...`."""
        if entry.score is None:
            return {}
        found = {"selected/score": entry.score}
        for row in read_rows(self.run.metrics):
            if row.n == entry.validated_n and row.key.startswith("val/dice") and math.isfinite(row.value):
                found[plain_key(row.key.replace("val/", "selected/", 1))] = row.value
        return found

    def _data(self, context: str) -> tuple[str, str] | tuple[None, None]:
        """Name and digest of the latest data set of a context; None twice where none was named."""
        inputs = self._client.get_run(self.run_id).inputs
        for known in reversed(inputs.dataset_inputs if inputs is not None else ()):
            if any(tag.value == context for tag in known.tags):
                return known.dataset.name, known.dataset.digest
        return None, None

    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        if found is not None:
            return str(found.experiment_id)
        where = None
        if self.uri.startswith("sqlite:"):  # else MLflow would make ./mlruns wherever the process stands
            store = Path(self.uri.removeprefix("sqlite:///"))
            where = (store.parent / "mlartifacts" / plain_key(self.experiment).replace("/", "-")).as_uri()
        return str(self._client.create_experiment(self.experiment, artifact_location=where))

    def _known_run(self) -> str | None:
        try:
            record = read_json(self.run.mlflow)
        except (OSError, ValueError):
            return None
        if record.get("uri") != self.uri:
            return None
        try:
            return str(self._client.get_run(str(record.get("run_id"))).info.run_id)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
            _logger.warning("MLflow has no run %s (any more): a new copy is made.", record.get("run_id"))
            return None

    def _new_run(self) -> str:
        tags = {"mlflow.parentRunId": self.parent} if self.parent else {}
        made = self._client.create_run(self.experiment_id, run_name=self.run.name, tags=tags)
        run_id = str(made.info.run_id)
        write_json(self.run.mlflow, {"run_id": run_id, "experiment_id": self.experiment_id, "uri": self.uri})
        return run_id

    def _params(self, params: Mapping[str, str]) -> None:
        known = self._client.get_run(self.run_id).data.params
        if not known:
            items = [Param(key, value) for key, value in params.items()]
            for start in range(0, len(items), _BATCH):
                self._client.log_batch(self.run_id, params=items[start : start + _BATCH])
            return
        drift = {key: value for key, value in params.items() if known.get(key) != value}
        if drift:
            self._tag({"param_drift": json.dumps(drift, ensure_ascii=False)})

    def _tag(self, tags: Mapping[str, str]) -> None:
        self._client.log_batch(self.run_id, tags=[RunTag(plain_key(k), str(v)[:TAG_LENGTH]) for k, v in tags.items()])

    def _sent_before(self) -> dict[str, set[int]]:
        keys = self._client.get_run(self.run_id).data.metrics
        return {key: {m.step for m in self._client.get_metric_history(self.run_id, key)} for key in keys}


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no links."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)

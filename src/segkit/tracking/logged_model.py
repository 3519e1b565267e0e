"""The selected checkpoint as a LoggedModel of MLflow: safetensors, configuration and plan; nothing is pickled."""

import math

from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput

from segkit.runs.directory import RunDirectory
from segkit.runs.files import sha256
from segkit.runs.manifest import MODEL, Entry, verify_checkpoint
from segkit.tracking.folder import selected, times
from segkit.tracking.journal import read_rows
from segkit.tracking.names import TAG_LENGTH, plain_key
from segkit.tracking.privacy import Privacy
from segkit.tracking.record import Record


def log_model(client: MlflowClient, run: RunDirectory, record: Record, privacy: Privacy) -> None:
    """Copy the weights of the run's selected checkpoint, once a step; nothing for a run that has not finished.

    Args:
        client: Of the store.
        run: The run folder.
        record: Which MLflow run is its copy; the model is noted there when all of it has arrived.
        privacy: What of the names and the files may go.

    Raises:
        StorageError: The checkpoint is damaged.
    """
    found = selected(run)
    if found is None or str(found[1].step) in record.models:
        return
    checkpoint, entry, reason = found
    verify_checkpoint(checkpoint, files=frozenset({MODEL}))
    model_id = _known(client, record, entry)
    if model_id is None:
        called, because = privacy.text(run.name), privacy.reason(reason)
        model_id = _create(client, called, record, entry, because, sha256(checkpoint / MODEL))
    client.log_model_artifact(model_id, str(checkpoint / MODEL))
    with privacy.files([(file, file.name) for file in (run.config, run.plan) if file.is_file()]) as files:
        for file, _ in files:
            client.log_model_artifact(model_id, str(file))
    outputs = client.get_run(record.run_id).outputs
    if model_id not in {output.model_id for output in (outputs.model_outputs if outputs is not None else ())}:
        client.log_outputs(record.run_id, [LoggedModelOutput(model_id, step=entry.epoch)])
    name, digest = _validation_data(client, record.run_id)
    at = times(run).get(entry.n, 0)  # the same each time, so that a point sent twice is one
    for key, value in _scores(run, entry).items():
        client.log_metric(
            record.run_id, key, value, timestamp=at, step=entry.epoch, model_id=model_id, dataset_name=name,
            dataset_digest=digest,
        )  # fmt: skip
    client.finalize_logged_model(model_id, "READY")
    record.models[str(entry.step)] = model_id
    record.save(run.mlflow)


def _known(client: MlflowClient, record: Record, entry: Entry) -> str | None:
    """The model of this checkpoint that an earlier attempt has begun."""
    models = client.search_logged_models([record.experiment_id], f"source_run_id = '{record.run_id}'")
    return next((str(m.model_id) for m in models if (m.params or {}).get("step") == str(entry.step)), None)


def _create(client: MlflowClient, name: str, record: Record, entry: Entry, reason: str, weights_sha256: str) -> str:
    made = client.create_logged_model(
        record.experiment_id,
        name=plain_key(f"{name}-step-{entry.step}").replace("/", "-").replace(":", "-").replace(".", "-"),
        source_run_id=record.run_id,
        params={"step": str(entry.step), "epoch": str(entry.epoch), "samples": str(entry.n)},
        tags={"segkit.reason": reason[:TAG_LENGTH], "segkit.weights_sha256": weights_sha256},
        model_type="segkit",
    )
    return str(made.model_id)


def _scores(run: RunDirectory, entry: Entry) -> dict[str, float]:
    """Score and Dice, by class too, of exactly these weights, as `selected/...`."""
    if entry.score is None:
        return {}
    found = {"selected/score": entry.score}
    for row in read_rows(run.metrics):
        if row.n == entry.validated_n and row.key.startswith("val/dice") and math.isfinite(row.value):
            found[plain_key(row.key.replace("val/", "selected/", 1))] = row.value
    return found


def _validation_data(client: MlflowClient, run_id: str) -> tuple[str, str] | tuple[None, None]:
    """Name and digest of the latest data set of validation; None twice where none was named."""
    inputs = client.get_run(run_id).inputs
    for known in reversed(inputs.dataset_inputs if inputs is not None else ()):
        if any(tag.value == "validation" for tag in known.tags):
            return known.dataset.name, known.dataset.digest
    return None, None

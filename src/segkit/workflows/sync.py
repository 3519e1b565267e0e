"""`sync`: bring MLflow's copies of runs up to date from their folders."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segkit.callbacks.quiet import quiet
from segkit.errors import SegkitError, StorageError, UsageError
from segkit.runs.directory import RunDirectory
from segkit.runs.locate import open_run
from segkit.tracking.folder import fingerprint, runs_below
from segkit.tracking.record import Record
from segkit.tracking.store import shown, store_uri
from segkit.workflows.copying import own_store


def run(config: Mapping[str, Any]) -> dict[str, int]:
    """Bring one copy up to date, or those of all runs under `paths.runs` that are not.

    Args:
        config: `run` (folder, name below `paths.runs`, or null for all), `tracking.uri`, `tracking.experiment`,
            `paths.runs`, `paths.mlflow`.

    Returns:
        Points sent, by the folder of the run.

    Raises:
        UsageError: There is no such run.
        RunInUseError: The named run is being trained.
        StorageError: A store cannot be reached.
    """
    quiet()
    root = Path(config["paths"]["runs"]).expanduser()
    if config["run"] is not None:
        directory = open_run(config["run"], root=root)
        return {str(directory.path): _sync(directory, directory.load_config(), config)}
    return _sync_all(root, config)


def _sync_all(root: Path, config: Mapping[str, Any]) -> dict[str, int]:
    """All that are not complete; one that cannot be copied is told and does not stop the others."""
    sent: dict[str, int] = {}
    failed: list[SegkitError] = []
    down: set[str] = set()
    for directory in runs_below(root):
        try:
            own = directory.load_config()
            store, _ = _target(directory, own, config)
            uri = store_uri(store)
            if reason := _passed_over(directory, own, config, uri):
                print(f"{directory.path}  {reason}")
            elif uri in down:
                print(f"{directory.path}  not sent")
            else:
                sent[str(directory.path)] = _sync(directory, own, config)
        except SegkitError as error:
            failed.append(error)
            down |= {uri} if isinstance(error, StorageError) else set()
            print(f"{directory.path}  {error.what}", flush=True)
    if not sent and not failed:
        print(f"nothing to send from {root.absolute()}")
    if failed:
        raise failed[0]
    return sent


def _passed_over(directory: RunDirectory, own: Mapping[str, Any], config: Mapping[str, Any], uri: str) -> str:
    """Why a run that was not named is not copied; empty where it is."""
    if (holder := directory.holder()) is not None:
        return f"in use by {holder}, which keeps its copy itself"
    asked = config["tracking"]["uri"] or config["paths"]["mlflow"]
    if not asked and own.get("tracking", {}).get("name") == "none":
        return "not tracked (tracking=none)"
    if Record.load(directory.mlflow, uri).complete == fingerprint(directory):
        return f"up to date in {shown(uri)}"
    return ""


def _sync(directory: RunDirectory, own: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    """Copy one run and say so."""
    store, experiment = _target(directory, own, config)
    mirror = importlib.import_module("segkit.tracking.mirror").mirror  # MLflow takes seconds to import
    done = mirror(directory, store=store, experiment=experiment)
    print(f"{directory.path}  {done.sent} points sent  {done.status}  {done.uri}  run {done.run_id}", flush=True)
    return int(done.sent)


def _target(directory: RunDirectory, own: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, str]:
    """Where the copy is to be: where the command line says, else the run's own store."""
    tracking, paths = config["tracking"], config["paths"]
    try:
        store, experiment = own_store(directory, own)
    except (KeyError, TypeError, AttributeError) as error:
        if not (tracking["uri"] or paths["mlflow"]):
            raise UsageError(
                "The run's configuration does not say where its copy is.",
                where=str(directory.config),
                why=repr(error),
                mend="paths.mlflow=<file> or tracking.uri=<address>",
            ) from error
        store, experiment = "", "segkit"
    return str(tracking["uri"] or paths["mlflow"] or store), str(tracking["experiment"] or experiment)

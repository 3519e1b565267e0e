"""`sync`: bring MLflow's copies of runs and sweeps up to date from their folders."""

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from segkit.callbacks.quiet import quiet
from segkit.errors import SegkitError, StorageError, UsageError
from segkit.runs.directory import RunDirectory
from segkit.runs.locate import open_run
from segkit.runs.sweep import SweepDirectory, open_sweep, sweeps_below
from segkit.tracking.folder import fingerprint, fingerprint_of_sweep, runs_below
from segkit.tracking.record import Record
from segkit.tracking.store import shown, store_uri
from segkit.workflows.copying import own_store, sweep_store


def run(config: Mapping[str, Any]) -> dict[str, int]:
    """Bring one copy up to date, those of a sweep, or those of all runs under `paths.runs` that are not.

    Args:
        config: `run` (folder of a run or a sweep, name below `paths.runs`, or null for all), `tracking.uri`,
            `tracking.experiment`, `paths.runs`, `paths.mlflow`.

    Returns:
        Points sent, by the folder.

    Raises:
        UsageError: There is no such run.
        RunInUseError: The named run is being trained.
        StorageError: A store cannot be reached.
    """
    quiet()
    root = Path(config["paths"]["runs"]).expanduser()
    if config["run"] is None:
        return _sync_all([*runs_below(root), *sweeps_below(root)], config, where=str(root.absolute()))
    if (sweep := open_sweep(config["run"], root=root)) is not None:
        return _sync_all([*sweep.runs, *([sweep] if sweep.members else [])], config, where=str(sweep.path))
    directory = open_run(config["run"], root=root)
    return {str(directory.path): _sync(directory, *_target(directory, directory.load_config(), config))}


def _sync_all(
    folders: Iterable[RunDirectory | SweepDirectory], config: Mapping[str, Any], *, where: str
) -> dict[str, int]:
    """All that are not complete; one that cannot be copied is told and does not stop the others.

    A sweep comes after its runs: its store is theirs.
    """
    sent: dict[str, int] = {}
    failed: list[SegkitError] = []
    down: set[str] = set()
    for folder in folders:
        uri = ""
        try:
            target = _target_of(folder, config)
            uri = store_uri(target[0]) if target is not None else ""
            if target is None:
                print(f"{folder.path}  not tracked (tracking=none)")
            elif reason := _passed_over(folder, uri):
                print(f"{folder.path}  {reason}")
            elif uri in down:
                print(f"{folder.path}  not sent")
            else:
                sent[str(folder.path)] = _sync(folder, *target)
        except SegkitError as error:
            failed.append(error)
            down |= {uri} if isinstance(error, StorageError) else set()
            print(f"{folder.path}  {error.what}", flush=True)
    if not sent and not failed:
        print(f"nothing to send from {where}")
    if failed:
        raise failed[0]
    return sent


def _target_of(folder: RunDirectory | SweepDirectory, config: Mapping[str, Any]) -> tuple[str, str] | None:
    """Where the copy of a folder that was not named is to be; None where it is to have none."""
    tracking, asked = config["tracking"], config["tracking"]["uri"] or config["paths"]["mlflow"]
    if isinstance(folder, RunDirectory):
        own = folder.load_config()
        target = _target(folder, own, config)
        return None if not asked and own.get("tracking", {}).get("name") == "none" else target
    found = sweep_store(folder)
    if asked:
        return str(asked), str(tracking["experiment"] or (found[1] if found else "segkit"))
    return found and (found[0], str(tracking["experiment"] or found[1]))


def _passed_over(folder: RunDirectory | SweepDirectory, uri: str) -> str:
    """Why a folder that was not named is not copied; empty where it is."""
    if isinstance(folder, RunDirectory) and (holder := folder.holder()) is not None:
        return f"in use by {holder}, which keeps its copy itself"
    now = fingerprint(folder) if isinstance(folder, RunDirectory) else fingerprint_of_sweep(folder)
    return f"up to date in {shown(uri)}" if Record.load(folder.mlflow, uri).complete == now else ""


def _sync(folder: RunDirectory | SweepDirectory, store: str, experiment: str) -> int:
    """Make one copy and say so."""
    mirror = importlib.import_module("segkit.tracking.mirror").mirror  # MLflow takes seconds to import
    done = mirror(folder, store=store, experiment=experiment)
    print(f"{folder.path}  {done.sent} points sent  {done.status}  {done.uri}  run {done.run_id}", flush=True)
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

"""What of a run goes to MLflow, and when: at the start its configuration and data, at the end what it made."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segkit.data.pipeline import Opened
from segkit.data.splits import Roles
from segkit.planning.device import DeviceFacts
from segkit.planning.plan import Plan
from segkit.reporting.banner import command_line, people_by_role
from segkit.runs.directory import RunDirectory
from segkit.runs.environment import package_version
from segkit.runs.manifest import Entry, read_manifest
from segkit.runs.sweep import SweepDirectory
from segkit.tracking.errand import mirror_within
from segkit.tracking.facts import DataFacts, Rewind, begin_life, load_facts
from segkit.tracking.store import is_on_this_machine, shown, sqlite_file, store_uri
from segkit.tracking.uploader import Uploader

_AFTER_EVALUATION_S = 20.0


def open_copy(config: Mapping[str, Any], directory: RunDirectory) -> Uploader | None:
    """The thread that keeps the copy; None where tracking is off."""
    tracking = config["tracking"]
    if tracking["name"] == "none":
        return None
    return Uploader(directory, store=_store(config), experiment=tracking["experiment"], wait_s=tracking["wait_s"])


def begin_copy(
    uploader: Uploader,
    config: Mapping[str, Any],
    directory: RunDirectory,
    *,
    opened: Opened,
    roles: Roles,
    plan: Plan,
    device: DeviceFacts,
) -> None:
    """Params, tags, a description, and which data went in under which content; into the run folder, then to MLflow."""
    tags = {
        "segkit.version": package_version("segkit") or "unknown",
        "segkit.dataset": opened.dataset.name,
        "segkit.plan": plan.name,
        "segkit.device": device.name,
        "segkit.fold": str(config["data"]["split"]["fold"]),
        "mlflow.note.content": f"{opened.dataset.name}: {people_by_role(opened.people)}. Scores of validation are "
        f"selection scores (optimistic); the test cases are scored by `evaluate`.\n\nRun folder: `{directory.path}`",
    }
    name, source = opened.dataset.name, str(opened.dataset.root)
    begin_life(
        directory,
        config,
        store=store_uri(_store(config)),
        experiment=config["tracking"]["experiment"],
        tags=tags,
        data=[
            DataFacts(name, _digest(opened, roles.train), source, "training"),
            DataFacts(name, _digest(opened, roles.tuning), source, "validation"),
        ],
        rewind=_rewind(directory, config["resume"]),
    )
    uploader.begin()


def finish_copy(uploader: Uploader, *, reason: str) -> None:
    """What the run made, the selected checkpoint as a model, and the end; waits for the thread, but not for ever."""
    uploader.end("FINISHED", reason=reason)


def copy_evaluation(directory: RunDirectory, config: Mapping[str, Any], *, trust: bool) -> None:
    """Send what a verb has found to the run's copy, where it has one; waits a few seconds and never fails.

    A run folder may come from others, and with it the address of its server. One that is neither on this machine nor
    the user's own (MLFLOW_TRACKING_URI) is asked only with `trust`.
    """
    if directory.holder() is None and _is_copied(directory, config):  # else its own thread sends them at its end
        _send(directory, *own_store(directory, config), trust=trust)


def copy_sweep_evaluation(sweep: SweepDirectory, *, trust: bool) -> None:
    """The same for what was found of the runs of a sweep together: to the parent of their copies, where they have any.

    Args:
        sweep: The folder of the runs.
        trust: Whether a server is asked that only the folders name.
    """
    if (found := sweep_store(sweep)) is not None:
        _send(sweep, *found, trust=trust)


def sweep_store(sweep: SweepDirectory) -> tuple[str, str] | None:
    """Store and experiment of a sweep: those of the first of its runs that has a copy; None where none has."""
    for run in sweep.members:
        config = run.load_config()
        if _is_copied(run, config):
            return own_store(run, config)
    return None


def _is_copied(run: RunDirectory, config: Mapping[str, Any]) -> bool:
    tracking = config.get("tracking")
    return isinstance(tracking, dict) and tracking.get("name", "none") != "none" and run.mlflow.is_file()


def _send(folder: RunDirectory | SweepDirectory, store: str, experiment: str, *, trust: bool) -> None:
    if trust or _is_near(store):
        mirror_within(_AFTER_EVALUATION_S, folder, store=store, experiment=experiment)
    else:
        print(f"to send the scores to {shown(store)}: {command_line('sync', [f'run={folder.path}'])}")


def own_store(directory: RunDirectory, config: Mapping[str, Any]) -> tuple[str, str]:
    """Store and experiment of a run's own copy, as its last life had them."""
    facts = load_facts(directory)
    if facts.store:
        return facts.store, facts.experiment
    return _store(config), config["tracking"].get("experiment", "segkit")


def _store(config: Mapping[str, Any]) -> str:
    return str(config["tracking"].get("uri") or config["paths"]["mlflow"])


def _is_near(store: str) -> bool:
    """Whether it is a sqlite file that is there, a server on this machine, or the one the environment names."""
    uri = store_uri(store)
    file = sqlite_file(uri)
    return file.is_file() if file else is_on_this_machine(uri) or store == os.environ.get("MLFLOW_TRACKING_URI")


def _rewind(directory: RunDirectory, resume: str) -> Rewind | None:
    """Where the run is taken back to, if `resume` names a checkpoint."""
    if resume in {"auto", "must", "never"}:
        return None
    entry = Entry.from_json(read_manifest(directory.checkpoints / Path(resume).name)["entry"])
    return Rewind(entry.step, entry.epoch, entry.n)


def _digest(opened: Opened, case_ids: Sequence[str]) -> str:
    """Sixteen digits of the contents of these cases' images and masks, whatever their names and their order."""
    wanted = set(case_ids)
    cases = (case for case in opened.dataset.cases if case.case_id in wanted)
    files = [(*case.images, *((case.label,) if case.label else ())) for case in cases]
    contents = "".join(sorted(opened.store.content_hash(paths) for paths in files))
    return hashlib.sha256(contents.encode()).hexdigest()[:16]

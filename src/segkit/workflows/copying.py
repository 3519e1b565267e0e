"""What of a run goes to MLflow, and when: at the start its configuration and data, at the end what it made."""

import hashlib
from collections.abc import Mapping, Sequence
from operator import methodcaller
from typing import Any

from segkit.data.pipeline import Opened
from segkit.data.splits import Roles
from segkit.planning.device import DeviceFacts
from segkit.planning.plan import Plan
from segkit.reporting.banner import of_people
from segkit.runs.directory import RunDirectory
from segkit.runs.environment import package_version
from segkit.runs.manifest import checkpoint_path
from segkit.runs.selection import Selection
from segkit.tracking.uploader import Uploader


def open_copy(config: Mapping[str, Any], directory: RunDirectory) -> Uploader | None:
    """The thread that keeps the copy; None where tracking is off."""
    tracking = config["tracking"]
    if tracking["name"] == "none":
        return None
    store = tracking["uri"] or config["paths"]["mlflow"]
    return Uploader(directory, store=store, experiment=tracking["experiment"])


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
    """Params, tags, a description, and which data went in under which content."""
    people = ", ".join(f"{role} {cases}{of_people(cases, n)}" for role, (cases, n) in opened.people.items())
    tags = {
        "segkit.version": package_version("segkit") or "unknown",
        "segkit.dataset": opened.dataset.name,
        "segkit.plan": plan.name,
        "segkit.device": device.name,
        "segkit.fold": str(config["data"]["split"]["fold"]),
        "mlflow.note.content": f"{opened.dataset.name}: {people}. Scores of validation are selection scores "
        f"(optimistic); the test cases are scored by `evaluate`.\n\nRun folder: `{directory.path}`",
    }
    uploader.begin(config, tags=tags)
    for context, case_ids in (("training", roles.train), ("validation", roles.tuning)):
        facts = {"digest": _digest(opened, case_ids), "source": str(opened.dataset.root), "context": context}
        uploader.do(methodcaller("dataset", opened.dataset.name, **facts))
    for path in (directory.config, directory.plan, directory.split):  # now: a run that is killed has them too
        uploader.do(methodcaller("artifact", path))


def _digest(opened: Opened, case_ids: Sequence[str]) -> str:
    """Sixteen digits of the contents of these cases' images and masks, whatever their names and their order."""
    wanted = set(case_ids)
    cases = (case for case in opened.dataset.cases if case.case_id in wanted)
    files = [(*case.images, *((case.label,) if case.label else ())) for case in cases]
    contents = "".join(sorted(opened.store.content_hash(paths) for paths in files))
    return hashlib.sha256(contents.encode()).hexdigest()[:16]


def finish_copy(uploader: Uploader, directory: RunDirectory, selection: Selection, *, reason: str) -> None:
    """What the run made, the selected checkpoint as a model, and the end; waits for the thread."""
    made = (directory.per_case, directory.curves, directory.overlays, directory.report)
    for path in (directory.config, directory.plan, directory.split, directory.env, *made):
        if path.exists():
            uploader.do(methodcaller("artifact", path))
    folder = checkpoint_path(directory.checkpoints, selection.entry.step)
    beside = (directory.config, directory.plan)
    uploader.do(methodcaller("model", folder, selection.entry, reason=selection.reason, files=beside))
    uploader.end("FINISHED", reason=reason)

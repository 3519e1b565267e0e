"""What a run folder says about its run, without trusting it: every file may be truncated, hostile or missing.

Nothing in the folder is executed, waited for or unfolded: JSON and plain YAML of bounded size, and checksums of at
most `MAX_HASHED_BYTES`, newest checkpoint first; what lies beyond that is told by its size and `not verified`.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segkit.errors import StorageError
from segkit.runs.directory import RunDirectory
from segkit.runs.evaluations import QUEUE
from segkit.runs.files import read_json, read_yaml
from segkit.runs.index import best, last
from segkit.runs.manifest import Entry, NewerFormat, check_sizes, checkpoint_path, checkpoint_steps, verify_checkpoint
from segkit.runs.scores import entry_of
from segkit.runs.untrusted import is_regular

MAX_HASHED_BYTES = 4 * 2**30
"""Bytes of checkpoints that are read again to compare checksums: some seconds' worth."""
MAX_CHECKPOINTS = 1000
_MAX_TEXT = 2000
_STATES = ("running", "finished", "failed", "preempted")


def standing(run: RunDirectory, *, max_hashed_bytes: int = MAX_HASHED_BYTES) -> dict[str, Any]:
    """Facts about a run as plain values: state, progress, score, checkpoints, and what a resume would restore.

    Never raises for what is in the folder; faults are listed under `problems`. Executes nothing.

    Args:
        run: The folder.
        max_hashed_bytes: Checkpoints beyond so many bytes are `not verified`.
    """
    problems: list[str] = []
    config = _mapping(run.config, problems, read_yaml)
    status = _optional(run.status, problems)
    holder = _holder(run, problems)
    checkpoints = _checkpoints(run, problems, max_hashed_bytes)
    usable = [Entry.from_json(c["entry"]) for c in checkpoints if "entry" in c]
    newest, top = last(usable), best(usable)
    return {
        "run": plain_text(run.name),
        "path": plain_text(str(run.path)),
        "state": _state(status, problems, held=holder is not None),
        "reason": plain_text(status.get("reason")),
        "holder": holder,
        "epoch": newest.epoch if newest else 0,
        "max_epochs": _max_epochs(run, config, problems),
        "step": newest.step if newest else 0,
        "samples": newest.n if newest else 0,
        "score": newest.score if newest else None,
        "best_score": top.score if top else None,
        "best_epoch": top.epoch if top else None,
        "epochs_without_improvement": newest.epoch - top.epoch if newest and top else None,
        "evaluating": _evaluating(run, problems) if holder is not None else None,
        "resumes_from": _resume(run.checkpoints, newest, checkpoints),
        "checkpoints": [{k: v for k, v in c.items() if k != "entry"} for c in checkpoints],
        "mlflow_run": plain_text(_optional(run.mlflow, problems).get("run_id")),
        "problems": [plain_text(problem) for problem in problems],
    }


def plain_text(value: object) -> str | None:
    """Text as it may be shown: of bounded length, without the control characters that a terminal obeys."""
    if value is None:
        return None
    text = value if isinstance(value, str) else repr(value)
    shown = text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}... ({len(text)} characters)"
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in shown)


def _mapping(path: Path, problems: list[str], read: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    try:
        return read(path)
    except (OSError, ValueError) as error:
        problems.append(f"{path.name}: {error}")
        return {}


def _optional(path: Path, problems: list[str]) -> dict[str, Any]:
    """A JSON file that need not be there; a link to nothing is there."""
    try:
        return read_json(path)
    except FileNotFoundError as error:
        if path.is_symlink():
            problems.append(f"{path.name}: {error}")
    except (OSError, ValueError) as error:
        problems.append(f"{path.name}: {error}")
    return {}


def _evaluating(run: RunDirectory, problems: list[str]) -> dict[str, int] | None:
    """Steps of the checkpoints that are evaluated apart from the training: the one at work and the one that waits."""
    queue = _optional(run.evaluations / QUEUE, problems)
    steps = {name: queue.get(name) for name in ("running", "waiting")}
    return {name: s for name, s in steps.items() if isinstance(s, int) and 0 <= s < 2**63} or None


def _holder(run: RunDirectory, problems: list[str]) -> str | None:
    lock = run.lock_file
    if not is_regular(lock):
        if os.path.lexists(lock):
            problems.append(f"{lock.name}: no regular file, so that nobody can hold the run")
        return None
    try:
        holder = run.holder()
    except OSError as error:
        problems.append(f"{lock.name}: {error}")
        return None
    return None if holder is None else plain_text(str(holder))


def _state(status: dict[str, Any], problems: list[str], *, held: bool) -> str:
    state = status.get("state", "never started")
    if held:
        return "finished" if state == "finished" else "running"  # finished, and its last tables are being written
    if state == "running":
        return "killed"
    if state not in (*_STATES, "never started"):
        problems.append(f"STATUS.json: {state!r} is no state")
        return "unknown"
    return str(state)


def _checkpoints(run: RunDirectory, problems: list[str], budget: int) -> list[dict[str, Any]]:
    """Facts of each checkpoint by step; checksums are compared newest first, while the budget lasts."""
    try:
        steps = checkpoint_steps(run.checkpoints)
    except OSError as error:
        problems.append(f"{run.checkpoints.name}: {error}")
        return []
    if len(steps) > MAX_CHECKPOINTS:
        problems.append(f"{run.checkpoints.name}: {len(steps)} folders; the newest {MAX_CHECKPOINTS} were looked at")
    found = []
    for step in reversed(steps[-MAX_CHECKPOINTS:]):
        facts, read = _checkpoint(run.checkpoints, step, problems, budget)
        budget -= read
        found.append(facts)
    return found[::-1]


def _checkpoint(root: Path, step: int, problems: list[str], budget: int) -> tuple[dict[str, Any], int]:
    """Facts of one checkpoint, and how many bytes were read for them."""
    path = checkpoint_path(root, step)
    facts: dict[str, Any] = {"name": path.name, "step": step, "epoch": None, "score": None, "bytes": None}
    read = 0
    try:
        manifest = check_sizes(path)
        entry = entry_of(path, manifest, tell=problems.append)
        size = sum(file["bytes"] for file in manifest["files"].values())
        if size <= budget:
            read = size
            verify_checkpoint(path)
    except NewerFormat as error:
        problems.append(f"{path.name}: {error.what} {error.why}")
        return {**facts, "state": "newer format"}, read
    except StorageError as error:
        problems.append(f"{path.name}: {error.why}")
        return {**facts, "state": "damaged"}, read
    except OSError as error:
        problems.append(f"{path.name}: {error}")
        return {**facts, "state": "damaged"}, read
    if entry.step != step:
        problems.append(f"{path.name}: it calls itself step {entry.step}")
        return {**facts, "state": "damaged"}, read
    if size > budget:
        problems.append(f"{path.name}: {size / 1e9:.1f} GB are too much to read here: checksums were not compared")
    facts |= {"epoch": entry.epoch, "score": entry.score, "bytes": size, "entry": entry.to_json()}
    contents = sorted(plain_text(name) or "" for name in [*manifest["files"], *manifest["contents"]])
    return {**facts, "contents": contents, "state": "whole" if size <= budget else "not verified"}, read


def _resume(root: Path, newest: Entry | None, checkpoints: list[dict[str, Any]]) -> dict[str, Any] | None:
    if newest is None:
        return None
    name = checkpoint_path(root, newest.step).name
    facts = next(c for c in checkpoints if c["name"] == name)
    contents = facts["contents"]
    return {
        "checkpoint": name,
        "verified": facts["state"] == "whole",
        "epoch": newest.epoch,
        "step": newest.step,
        "samples": newest.n,
        "weights": "model.safetensors" in contents,
        "averaged_weights": "training.safetensors" in contents,
        "optimizer": "optimizer.pt" in contents,
        "scheduler": "lr_schedulers" in contents,
        "callbacks": "callbacks" in contents,
    }


def _max_epochs(run: RunDirectory, config: dict[str, Any], problems: list[str]) -> int | None:
    trainer = config.get("trainer")
    value = trainer.get("max_epochs") if isinstance(trainer, dict) else None
    if value is None:
        value = _optional(run.plan, problems).get("max_epochs")
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31 else None

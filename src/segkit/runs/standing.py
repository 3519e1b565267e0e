"""What a run folder says about its run, without trusting it: every file may be truncated, hostile or missing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from segkit.errors import StorageError
from segkit.runs.directory import RunDirectory
from segkit.runs.files import read_json, read_yaml
from segkit.runs.index import best, last
from segkit.runs.manifest import Entry, checkpoint_path, checkpoint_steps, read_manifest, verify_checkpoint


def standing(run: RunDirectory) -> dict[str, Any]:
    """Facts about a run as plain values: state, progress, score, checkpoints, and what a resume would restore.

    Never raises for what is in the folder; faults are listed under `problems`. Executes nothing: JSON, plain YAML
    and checksums only.
    """
    problems: list[str] = []
    config = _mapping(run.config, problems, read_yaml)
    status = _mapping(run.status, problems, read_json) if run.status.exists() else {}
    holder = run.holder()
    checkpoints = [_checkpoint(run.checkpoints, step, problems) for step in checkpoint_steps(run.checkpoints)]
    whole = [Entry.from_json(c["entry"]) for c in checkpoints if c["state"] == "whole"]
    newest, top = last(whole), best(whole)
    state = "running" if holder is not None else status.get("state", "never started")
    if holder is None and state == "running":
        state = "killed"
    return {
        "run": run.name,
        "path": str(run.path),
        "state": state,
        "reason": status.get("reason"),
        "holder": str(holder) if holder is not None else None,
        "epoch": newest.epoch if newest else 0,
        "max_epochs": _max_epochs(run, config, problems),
        "step": newest.step if newest else 0,
        "samples": newest.n if newest else 0,
        "score": newest.score if newest else None,
        "best_score": top.score if top else None,
        "best_epoch": top.epoch if top else None,
        "epochs_without_improvement": newest.epoch - top.epoch if newest and top else None,
        "resumes_from": _resume(run.checkpoints, newest, checkpoints),
        "checkpoints": [{k: v for k, v in c.items() if k != "entry"} for c in checkpoints],
        "mlflow_run": (_mapping(run.mlflow, problems, read_json) if run.mlflow.exists() else {}).get("run_id"),
        "problems": problems,
    }


def _mapping(path: Path, problems: list[str], read: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    try:
        return read(path)
    except (OSError, ValueError) as error:
        problems.append(f"{path.name}: {error}")
        return {}


def _checkpoint(root: Path, step: int, problems: list[str]) -> dict[str, Any]:
    path = checkpoint_path(root, step)
    facts: dict[str, Any] = {"name": path.name, "step": step, "epoch": None, "score": None, "bytes": None}
    try:
        manifest = read_manifest(path)
        entry = verify_checkpoint(path)
    except StorageError as error:
        problems.append(f"{path.name}: {error.why}")
        return {**facts, "state": "damaged"}
    return {
        **facts,
        "epoch": entry.epoch,
        "score": entry.score,
        "bytes": sum(file["bytes"] for file in manifest["files"].values()),
        "contents": sorted([*manifest["files"], *manifest["contents"]]),
        "state": "whole",
        "entry": entry.to_json(),
    }


def _resume(root: Path, newest: Entry | None, checkpoints: list[dict[str, Any]]) -> dict[str, Any] | None:
    if newest is None:
        return None
    name = checkpoint_path(root, newest.step).name
    contents = next(c["contents"] for c in checkpoints if c["name"] == name)
    return {
        "checkpoint": name,
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
    if value is None and run.plan.exists():
        value = _mapping(run.plan, problems, read_json).get("max_epochs")
    return value if isinstance(value, int) else None

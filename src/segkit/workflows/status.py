"""`status`: where a run stands and what a resume would restore; trusts and executes nothing in its folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segkit.runs.directory import RunDirectory
from segkit.runs.locate import open_run
from segkit.runs.standing import standing


def run(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Print the standing of one run, or of every run under `paths.runs`.

    Args:
        config: `run` (folder, name below `paths.runs`, or null for all), `json`, `paths.runs`.

    Returns:
        The facts of each run; see `segkit.runs.standing`.

    Raises:
        UsageError: There is no run of that name.
    """
    root = Path(config["paths"]["runs"])
    if config["run"] is not None:
        facts = [standing(open_run(config["run"], root=root))]
    else:
        facts = [standing(RunDirectory(path.parent)) for path in sorted(root.glob("*/config.yaml"))]
    if config["json"]:
        print(json.dumps(facts if config["run"] is None else facts[0], indent=1, allow_nan=False))
    elif config["run"] is not None:
        print(describe(facts[0]))
    elif facts:
        print(table(facts))
    else:
        print(f"no run in {root.absolute()}")
    return facts


def describe(facts: Mapping[str, Any]) -> str:
    """One run, a fact a line, its checkpoints as a table."""
    lines = [f"{facts['run']}: {facts['state']}" + (f" ({facts['reason']})" if facts["reason"] else "")]
    lines.append(f"  folder       {facts['path']}")
    if facts["holder"]:
        lines.append(f"  held by      {facts['holder']}")
    lines.append(f"  epoch        {_progress(facts)}, step {facts['step']}, {facts['samples']} samples")
    lines.append(f"  score        {_number(facts['score'])} (selection score, optimistic)")
    if facts["best_score"] is not None:
        since = facts["epochs_without_improvement"]
        lines.append(
            f"  best         {_number(facts['best_score'])} in epoch {facts['best_epoch']}, {since} epochs since"
        )
    if facts["evaluating"]:
        at_work = ", ".join(f"step {step} {state}" for state, step in facts["evaluating"].items())
        lines.append(f"  evaluation   {at_work}")
    lines.append(f"  resume       {_resume(facts['resumes_from'])}")
    if facts["mlflow_run"]:
        lines.append(f"  MLflow run   {facts['mlflow_run']}")
    if facts["checkpoints"]:
        lines.append("  checkpoints")
        rows = [("name", "epoch", "score", "MB", "state")]
        rows += [
            (c["name"], _text(c["epoch"]), _number(c["score"]), _megabytes(c["bytes"]), c["state"])
            for c in facts["checkpoints"]
        ]
        lines += [f"    {line}" for line in _columns(rows)]
    lines += [f"  problem      {problem}" for problem in facts["problems"]]
    return "\n".join(lines)


def table(facts: Sequence[Mapping[str, Any]]) -> str:
    """Several runs, a line each."""
    rows = [("run", "state", "epoch", "score", "best", "in epoch", "problems")]
    rows += [
        (
            each["run"],
            each["state"],
            _progress(each),
            _number(each["score"]),
            _number(each["best_score"]),
            _text(each["best_epoch"]),
            str(len(each["problems"]) or ""),
        )
        for each in facts
    ]
    return "\n".join(_columns(rows))


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _resume(point: Mapping[str, Any] | None) -> str:
    if point is None:
        return "nothing to go on from: training would start afresh"
    parts = ("weights", "averaged_weights", "optimizer", "scheduler", "callbacks")
    restored = ", ".join(name.replace("_", " ") for name in parts if point[name])
    unsure = "" if point["verified"] else " (checksums were not compared)"
    return (
        f"{point['checkpoint']}: epoch {point['epoch']}, step {point['step']}, {point['samples']} samples; "
        f"{restored}{unsure}"
    )


def _progress(facts: Mapping[str, Any]) -> str:
    return f"{facts['epoch']}" + (f" of {facts['max_epochs']}" if facts["max_epochs"] else "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.1f}"

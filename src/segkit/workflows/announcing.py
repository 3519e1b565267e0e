"""What a person is told when a training begins and when it ends; the words themselves are `reporting.banner`'s."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segkit.data.pipeline import Opened
from segkit.evaluation import EvaluationSettings
from segkit.networks.batch_statistics import warn_of_few_values
from segkit.networks.describe import describe
from segkit.planning.device import DeviceFacts
from segkit.planning.plan import Plan
from segkit.reporting.banner import EndFacts, StartFacts, command_line
from segkit.runs.directory import RunDirectory
from segkit.runs.environment import package_version
from segkit.runs.manifest import checkpoint_path
from segkit.runs.resume import ResumePoint
from segkit.runs.selection import FEW_CASES, Selection
from segkit.workflows.memory import MemoryFacts


def start_facts(
    config: Mapping[str, Any],
    directory: RunDirectory,
    *,
    opened: Opened,
    plan: Plan,
    network: nn.Module,
    device: str,
    max_epochs: int,
    point: ResumePoint | None,
    changes: Sequence[str],
    ranks: int = 1,
    memory: MemoryFacts | None = None,
    weights: Sequence[str] = (),
    more_warnings: Sequence[str] = (),
) -> StartFacts:
    """What stands in the banner.

    Args:
        config: Resolved configuration.
        directory: The run folder.
        opened: The data set.
        plan: The run's plan.
        network: What is trained.
        device: See `device_text`.
        max_epochs: Epochs in all.
        point: Where the run goes on, or None.
        changes: What has changed since its last life.
        ranks: Processes that share each batch.
        memory: What training is predicted to take; None where nobody asked.
        weights: What the network begins with, where that is a file.
        more_warnings: Lines that come before those on the data.
    """
    tracking, settings = config["tracking"], EvaluationSettings.from_config(config)
    tuning, epochs_done = len(opened.roles.tuning), point.entry.epoch if point else 0
    chosen = [_short(config[group]) for group in ("loss", "optimizer", "scheduler")]
    resumed = f"from {point.path.name} (epoch {epochs_done})" if point else ""
    resumed += f"; changed: {'; '.join(changes[:3])}" if point and changes else ""
    return StartFacts(
        version=package_version("segkit") or "from a checkout",
        run_name=directory.name,
        dataset=opened.dataset.name,
        layout=opened.dataset.layout,
        channels=plan.channels,
        classes=plan.labels.names,
        people=opened.people,
        plan_name=plan.name,
        spacing=plan.spacing,
        unit=plan.unit,
        patch_size=plan.patch_size,
        batch_size=plan.batch_size,
        network=type(network).__name__,
        described=describe(network, in_channels=plan.in_channels, patch_size=plan.patch_size).text(),
        recipe=", ".join([*chosen, f"rate {config['optimizer'].get('lr') or plan.learning_rate:g}"]),
        epochs=(epochs_done + 1, max_epochs),
        steps_per_epoch=plan.steps_per_epoch,
        device=device,
        precision=plan.precision,
        score=f"{settings.composite.formula} on {tuning} tuning cases; select={config['select']}",
        run_folder=str(directory.path),
        tracking="off" if tracking["name"] == "none" else str(tracking["uri"] or config["paths"]["mlflow"]),
        resume_line=command_line("train", [f"run_name={_name(config, directory)}", *_typed(config)]),
        resumed_from=resumed,
        budget="" if config["trainer"]["budget"] is None else plan.reasons.get("max_epochs", ""),
        memory=memory.text if memory else "",
        weights=weights,
        warnings=[
            *more_warnings,
            *_warn_of_few_values(network, plan, ranks),
            *_few(tuning),
            *(memory.warnings if memory else ()),
            *(str(finding) for finding in opened.findings if finding.level == "warning"),
        ],
    )


def _warn_of_few_values(network: nn.Module, plan: Plan, ranks: int) -> list[str]:
    return warn_of_few_values(
        network, in_channels=plan.in_channels, batch_size=-(-plan.batch_size // ranks), patch_size=plan.patch_size
    )


def end_facts(directory: RunDirectory, selection: Selection, *, reason: str, minutes: float) -> EndFacts:
    """What stands in the end block.

    Args:
        directory: The run folder.
        selection: The checkpoint that is used, and why.
        reason: Why training ended.
        minutes: What this life took.
    """
    entry, folder = selection.entry, checkpoint_path(directory.checkpoints, selection.entry.step)
    scores = torch.tensor([value for value in entry.per_case.values() if math.isfinite(value)])
    places = {"run": directory.path, "checkpoint": folder, "curves": directory.curves, "tables": directory.per_case}
    places |= {"overlays": directory.overlays, "report": directory.report, "log": directory.log}
    return EndFacts(
        reason=reason,
        selected=f"{folder.name} (epoch {entry.epoch}): {selection.reason}",
        score=entry.score,
        standard_error=float(scores.std() / len(scores) ** 0.5) if len(scores) > 1 else None,
        cases=len(scores),
        minutes=minutes,
        places={name: str(path) for name, path in places.items() if Path(path).exists()},
        commands=[
            command_line("evaluate", [f"run={directory.path}", "subset=test"]),
            command_line("predict", [f"run={directory.path}", "input=IMAGES", "output=MASKS"]),
            command_line("status", [f"run={directory.path}"]),
        ],
    )


def device_text(device: DeviceFacts, threads: int, *, ranks: int) -> str:
    """The device, its threads where they count, and how many ranks train."""
    text = f"{device.name}, {threads} threads" if device.kind == "cpu" else device.name
    return text if ranks == 1 else f"{ranks} ranks of {text} each"


def _few(tuning: int) -> list[str]:
    """A warning where so few cases select that chance does."""
    if 0 < tuning < FEW_CASES:
        return [f"{tuning} tuning cases: below {FEW_CASES} the choice of the checkpoint is mostly chance"]
    return []


def _short(part: Mapping[str, Any]) -> str:
    """A part of the configuration in a word or two: the terms of a sum, else the name of the class."""
    return " + ".join(part["terms"]) if part.get("terms") else str(part["_target_"]).rpartition(".")[2]


def _name(config: Mapping[str, Any], directory: RunDirectory) -> str:
    """The run's name with the sweep's that it belongs to: what `run_name` must be to go on with it."""
    return directory.path.relative_to(Path(config["paths"]["runs"]).expanduser().absolute()).as_posix()


def _typed(config: Mapping[str, Any]) -> list[str]:
    """Overrides of the command line as they were typed, without the run's name: to repeat them when resuming."""
    return [word for word in config.get("overrides", []) if not word.startswith("run_name=")]


def profile_block(folder: Path) -> str:
    """What `trainer.profiler=step` has found: the table, and where the trace lies; empty where there is neither."""
    table, trace = folder / "table.txt", folder / "trace.json"
    parts = [table.read_text()] if table.is_file() else []
    parts += [f"trace  {trace} (opens in https://ui.perfetto.dev)\n"] if trace.is_file() else []
    return "\n".join(["", *parts]) if parts else ""

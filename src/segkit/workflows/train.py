"""`train`: from a folder of images with masks to a trained, tracked and validated model.

The steps before training (check, plan, prepare) are done by the way where they have not been done. A named run
goes on where it stopped; what was decided at its first start is read from its folder, not decided again.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from segkit.callbacks.quiet import quiet
from segkit.configuration import build_loss
from segkit.data.pipeline import Opened, open_dataset, plan_dataset, prepare_dataset
from segkit.data.sample import sample_root
from segkit.data.splits import Roles
from segkit.data.stored_case import StoredCase
from segkit.errors import Preempted
from segkit.evaluation import EvaluationSettings
from segkit.planning.device import DeviceFacts, device_facts
from segkit.planning.plan import Plan
from segkit.reporting.banner import EndFacts, StartFacts, command_line, end_block, start_banner
from segkit.reporting.report import write_report
from segkit.runs.compatibility import refuse_incompatible
from segkit.runs.directory import RunDirectory
from segkit.runs.environment import package_version
from segkit.runs.files import read_json, write_json
from segkit.runs.horizon import horizon
from segkit.runs.locate import default_name
from segkit.runs.manifest import checkpoint_path
from segkit.runs.resume import ResumePoint, find_resume_point, rewind_to
from segkit.runs.selection import FEW_CASES, Selection
from segkit.tracking.journal import Journal
from segkit.tracking.uploader import Uploader
from segkit.types import Case
from segkit.workflows.components import Components, build_components, set_threads
from segkit.workflows.copying import begin_copy, finish_copy, open_copy
from segkit.workflows.finishing import draw_run_curves, draw_tuning, score_tuning
from segkit.workflows.loading import TrainedRun, load


def run(config: dict[str, Any], *, callbacks: Sequence[Callback] = ()) -> TrainedRun:
    """Train, or go on with a run.

    Args:
        config: Resolved configuration.
        callbacks: More Lightning callbacks, for use from Python.

    Raises:
        DataError: The data cannot be used; every fault is named.
        UsageError: The run cannot go on with this configuration.
        RunInUseError: Another process trains it.
        Preempted: A signal asked for the end; the state is saved.
    """
    started = time.monotonic()
    quiet()
    config = with_absolute_paths(config)
    name = config["run_name"] or _default_name(config)
    directory = RunDirectory(Path(config["paths"]["runs"]).expanduser() / name)
    directory.create()
    with directory.lock(), _log_file(directory.log):
        point = find_resume_point(directory, config["resume"])
        changes: list[str] = []
        if directory.exists:
            changes = refuse_incompatible(directory.load_config(), config, run_name=name)
        return _Life(config, directory, point, changes, started).train(callbacks)


class _Life:
    """One life of a run, from its start to its end or interruption; the run folder is locked throughout."""

    def __init__(
        self,
        config: dict[str, Any],
        directory: RunDirectory,
        point: ResumePoint | None,
        changes: Sequence[str],
        started: float,
    ) -> None:
        self.config, self.directory, self.point = config, directory, point
        self.changes, self.started = changes, started
        self.device = device_facts(config["trainer"]["accelerator"])
        self.threads = set_threads(config["trainer"]["threads"])

    def train(self, callbacks: Sequence[Callback]) -> TrainedRun:
        """Open, plan, prepare, train, select, draw, copy; say what happened."""
        config, directory = self.config, self.directory
        opened, plan = self._decide()
        epochs_done = self.point.entry.epoch if self.point else 0
        max_epochs = horizon(
            directory.path / "horizon.json",
            max_epochs=config["trainer"]["max_epochs"] or plan.max_epochs,
            extra_epochs=config["extra_epochs"],
            epochs_done=epochs_done,
        )
        if self.point is not None and epochs_done >= max_epochs:
            return self._end(self._load(), "it was finished before, nothing is left to train", max_epochs)
        loss = build_loss(config, plan, trust=True)
        prepared = prepare_dataset(opened, plan, needs=frozenset(getattr(loss, "needs", frozenset())))
        write_json(directory.split, prepared.roles.to_json())
        tuning = list(zip(opened.cases("tuning"), prepared.tuning, strict=True))
        uploader = open_copy(config, directory)
        every = config["overlays"]["every_n_epochs"] or 0
        parts = build_components(
            config,
            plan=plan,
            device=self.device,
            prepared=prepared,
            loss=loss,
            run=directory,
            max_epochs=max_epochs,
            snapshots=[
                (lambda *_: uploader.sync() if uploader else None, 1),
                (lambda *_: self._draw_epoch(tuning), every),
            ],
            callbacks=callbacks,
        )
        print(start_banner(self._start_facts(opened, plan, parts, max_epochs)), flush=True)
        if uploader:
            begin_copy(uploader, config, directory, opened=opened, roles=prepared.roles, plan=plan, device=self.device)
        directory.save_environment()
        directory.save_status("running", run=directory.name, max_epochs=max_epochs)
        self._fit(parts, uploader)
        reason = parts.early_stopping.reason if parts.early_stopping else ""
        trained = self._draw(tuning)
        score_tuning(trained, prepared.tuning)
        return self._end(trained, reason or f"all {max_epochs} epochs are done", max_epochs, uploader=uploader)

    def _load(self, checkpoint: str = "selected") -> TrainedRun:
        accelerator = self.config["trainer"]["accelerator"]
        return load(self.directory.path, checkpoint=checkpoint, accelerator=accelerator, trust=True)

    def _draw_epoch(self, tuning: Sequence[tuple[Case, StoredCase]]) -> None:
        self._draw(tuning, checkpoint="last")

    def _draw(self, tuning: Sequence[tuple[Case, StoredCase]], *, checkpoint: str = "selected") -> TrainedRun:
        """Curves, and overlays by the weights of a checkpoint."""
        trained = self._load(checkpoint)
        draw_run_curves(self.directory)
        epoch = "" if checkpoint == "selected" else f"epoch-{trained.selection.entry.epoch:04d}"
        draw_tuning(trained, tuning, number=self.config["overlays"]["cases"], folder=epoch)
        return trained

    def _decide(self) -> tuple[Opened, Plan]:
        """Roles and plan: those of the run where it has them, else made now and written."""
        config, directory = self.config, self.directory
        roles = Roles.from_json(read_json(directory.split)) if directory.split.is_file() else None
        opened = open_dataset(config, roles=roles)
        if directory.plan.is_file():
            plan = Plan.from_json(read_json(directory.plan))
        else:
            plan = plan_dataset(opened, config, self.device)
            write_json(directory.plan, plan.to_json())
        write_json(directory.split, opened.roles.to_json())
        directory.save_config(config)
        return opened, plan

    def _fit(self, parts: Components, uploader: Uploader | None) -> None:
        """Train; whatever ends it is written down before it goes on its way."""
        if self.point is not None:
            rewind_to(self.directory, self.point)  # before the journals: a kill between the two loses no row
        Journal(self.directory.metrics, self.directory.timings).cut(self.point.entry.n if self.point else 0)
        try:
            parts.trainer.fit(
                parts.module, datamodule=parts.datamodule, ckpt_path=str(self.point.path) if self.point else None
            )
        except Preempted as error:
            self._interrupted("preempted", error.why, uploader)
            raise
        except BaseException as error:
            self._interrupted("failed", f"{type(error).__name__}: {error}", uploader)
            raise

    def _interrupted(self, state: Any, reason: str, uploader: Uploader | None) -> None:  # noqa: ANN401
        self.directory.save_status(state, run=self.directory.name, reason=reason)
        if uploader:
            uploader.end("KILLED" if state == "preempted" else "FAILED", reason=reason, timeout_s=20)

    def _end(
        self, trained: TrainedRun, reason: str, max_epochs: int, *, uploader: Uploader | None = None
    ) -> TrainedRun:
        """Write the status, finish the copy, print the end block."""
        directory, selection = self.directory, trained.selection
        folder = checkpoint_path(directory.checkpoints, selection.entry.step)
        directory.save_status(
            "finished",
            run=directory.name,
            reason=reason,
            epoch=selection.entry.epoch,
            max_epochs=max_epochs,
            selected=folder.name,
            selected_because=selection.reason,
            selection_score_optimistic=selection.entry.score,
        )
        write_report(directory)
        if uploader:
            finish_copy(uploader, directory, selection, reason=reason)
        print(end_block(self._end_facts(selection, folder, reason)), flush=True)
        return trained

    # -- what a person sees --------------------------------------------------------------------------------

    def _start_facts(self, opened: Opened, plan: Plan, parts: Components, max_epochs: int) -> StartFacts:
        config, directory = self.config, self.directory
        tracking = config["tracking"]
        settings = EvaluationSettings.from_config(config)
        tuning = len(opened.roles.tuning)
        chosen = [_short(config[group]) for group in ("loss", "optimizer", "scheduler")]
        resumed = ""
        if self.point is not None:
            resumed = f"from {self.point.path.name} (epoch {self.point.entry.epoch})"
            resumed += f"; changed: {'; '.join(self.changes[:3])}" if self.changes else ""
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
            network=type(parts.module.network).__name__,
            parameters=sum(p.numel() for p in parts.module.network.parameters() if p.requires_grad),
            recipe=", ".join([*chosen, f"rate {config['optimizer'].get('lr') or plan.learning_rate:g}"]),
            epochs=((self.point.entry.epoch if self.point else 0) + 1, max_epochs),
            steps_per_epoch=plan.steps_per_epoch,
            device=_device_text(self.device, self.threads),
            precision=plan.precision,
            score=f"{settings.composite.formula} on {tuning} tuning cases; select={config['select']}",
            run_folder=str(directory.path),
            tracking="off" if tracking["name"] == "none" else str(tracking["uri"] or config["paths"]["mlflow"]),
            resume_line=command_line("train", [f"run_name={directory.name}", *_typed(config)]),
            resumed_from=resumed,
            warnings=[*_few(tuning), *(str(finding) for finding in opened.findings if finding.level == "warning")],
        )

    def _end_facts(self, selection: Selection, folder: Path, reason: str) -> EndFacts:
        entry, directory = selection.entry, self.directory
        scores = torch.tensor([value for value in entry.per_case.values() if math.isfinite(value)])
        places = {"run": directory.path, "checkpoint": folder, "curves": directory.curves, "tables": directory.per_case}
        places |= {"overlays": directory.overlays, "report": directory.report, "log": directory.log}
        return EndFacts(
            reason=reason,
            selected=f"{folder.name} (epoch {entry.epoch}): {selection.reason}",
            score=entry.score,
            standard_error=float(scores.std() / len(scores) ** 0.5) if len(scores) > 1 else None,
            cases=len(scores),
            minutes=(time.monotonic() - self.started) / 60,
            places={name: str(path) for name, path in places.items() if path.exists()},
            commands=[
                command_line("evaluate", [f"run={directory.path}", "subset=test"]),
                command_line("predict", [f"run={directory.path}", "input=IMAGES", "output=MASKS"]),
                command_line("status", [f"run={directory.path}"]),
            ],
        )


def with_absolute_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same configuration with every path absolute, so that the run is found again from any directory."""

    def absolute(value: str | None) -> str | None:
        return None if value is None else str(Path(value).expanduser().absolute())

    data, split = config["data"], config["data"]["split"]
    groups = data["groups"]
    if groups is not None and not groups.startswith("regex:"):
        groups = absolute(groups)
    data = {
        **data,
        "root": absolute(data["root"]),
        "groups": groups,
        "split": {**split, "file": absolute(split["file"])},
    }
    return {**config, "data": data, "paths": {name: absolute(path) for name, path in config["paths"].items()}}


def _default_name(config: Mapping[str, Any]) -> str:
    data = config["data"]
    dataset = data["name"] or Path(data["root"] or sample_root()).expanduser().absolute().name
    return default_name(dataset, config["experiment"], datetime.now())


def _few(tuning: int) -> list[str]:
    """A warning where so few cases select that chance does."""
    if 0 < tuning < FEW_CASES:
        return [f"{tuning} tuning cases: below {FEW_CASES} the choice of the checkpoint is mostly chance"]
    return []


def _short(part: Mapping[str, Any]) -> str:
    """A part of the configuration in a word or two: the terms of a sum, else the name of the class."""
    return " + ".join(part["terms"]) if part.get("terms") else str(part["_target_"]).rpartition(".")[2]


def _device_text(device: DeviceFacts, threads: int) -> str:
    return f"{device.name}, {threads} threads" if device.kind == "cpu" else device.name


def _typed(config: Mapping[str, Any]) -> list[str]:
    """Overrides of the command line as they were typed, without the run's name: to repeat them when resuming."""
    return [word for word in config.get("overrides", []) if not word.startswith("run_name=")]


class _log_file:
    """Also writes what the package logs to a file; warnings go on to standard error."""

    def __init__(self, path: Path) -> None:
        file, console = logging.FileHandler(path, encoding="utf-8"), logging.StreamHandler()
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        console.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        console.setLevel(logging.WARNING)
        self._handlers = (file, console)

    def __enter__(self) -> None:
        package = logging.getLogger("segkit")
        self._level = package.level
        package.setLevel(logging.INFO)
        for handler in self._handlers:
            package.addHandler(handler)

    def __exit__(self, *_: object) -> None:
        package = logging.getLogger("segkit")
        package.setLevel(self._level)
        for handler in self._handlers:
            package.removeHandler(handler)
            handler.close()

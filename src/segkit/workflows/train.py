"""`train`: from a folder of images with masks to a trained, tracked and validated model.

The steps before training (check, plan, prepare) are done by the way where they have not been done. A named run
goes on where it stopped; what was decided at its first start is read from its folder, not decided again.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from segkit.callbacks.budget_watch import BudgetWatch
from segkit.callbacks.quiet import quiet
from segkit.configuration import build_loss, build_network
from segkit.data.pipeline import Opened, prepare_dataset
from segkit.data.sample import sample_root
from segkit.data.sampling import samples_of_a_rank
from segkit.errors import Preempted, SegkitError, UsageError
from segkit.losses.partial_labels import over_partial_labels
from segkit.planning.device import device_facts
from segkit.planning.plan import Plan
from segkit.reporting.banner import end_block, start_banner
from segkit.reporting.report import write_report
from segkit.runs.compatibility import refuse_incompatible
from segkit.runs.directory import RunDirectory
from segkit.runs.environment import seconds_since_start
from segkit.runs.files import remove_tree, write_json
from segkit.runs.horizon import horizon
from segkit.runs.index import load_index, refresh
from segkit.runs.leftovers import sweep_abandoned
from segkit.runs.locate import default_name, run_folder
from segkit.runs.log import logged_to
from segkit.runs.manifest import checkpoint_path
from segkit.runs.preflight import checkpoint_bytes, require_room
from segkit.runs.resume import ResumePoint, find_resume_point, recover, rewind_to
from segkit.runs.scores import unscored
from segkit.tracking.journal import Journal
from segkit.tracking.uploader import Uploader
from segkit.workflows import rank
from segkit.workflows.announcing import device_text, end_facts, profile_block, start_facts
from segkit.workflows.components import Components, build_components, set_threads
from segkit.workflows.copying import begin_copy, finish_copy, open_copy
from segkit.workflows.deciding import decide
from segkit.workflows.finishing import draw_run_curves, draw_snapshot, score_tuning
from segkit.workflows.fitting import fit
from segkit.workflows.initial_weights import initial_weights, place_of_weights
from segkit.workflows.joining import announce, joined_rank, joined_world, local_ranks, wait_for_run
from segkit.workflows.launch import train_on_ranks
from segkit.workflows.life import Life
from segkit.workflows.loading import TrainedRun, load
from segkit.workflows.memory import require_memory
from segkit.workflows.rehearsal import Budget, measured, worth_timing
from segkit.workflows.stopping import end_at_once, stoppable
from segkit.workflows.stored import require_own_files

_SYNC_S = 10.0
_logger = logging.getLogger(__name__)


def run(config: dict[str, Any], *, callbacks: Sequence[Callback] = ()) -> TrainedRun | None:
    """Train, or go on with a run.

    Args:
        config: Resolved configuration.
        callbacks: More Lightning callbacks, for use from Python; they cannot be sent to ranks started here.

    Returns:
        The run; None on the ranks but the first under torchrun.

    Raises:
        DataError: The data cannot be used; every fault is named.
        UsageError: The run cannot go on with this configuration.
        RunInUseError: Another process trains it.
        Preempted: A signal asked for the end; the state is saved.
    """
    started = time.monotonic() - seconds_since_start("train")
    quiet()
    if joined_rank():
        rank.run(wait_for_run(), callbacks=callbacks)
        return None
    config = with_absolute_paths(config)
    name = config["run_name"] or _default_name(config)
    directory = RunDirectory(run_folder(Path(config["paths"]["runs"]).expanduser(), name))
    directory.create()
    require_own_files(directory)
    try:
        with directory.lock(), logged_to(directory.log), stoppable():
            recover(directory)
            sweep_abandoned(directory.overlays)
            point = find_resume_point(directory, config["resume"])
            changes: list[str] = []
            if directory.exists:
                changes = refuse_incompatible(directory.load_config(), config, run_name=name)
            return _Life(config, directory, point, changes, started).train(callbacks)
    except OSError as error:
        if error.filename is None:
            error.filename = str(directory.path)  # a write that fails does not say of what
        raise


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
        self.weights = initial_weights(config) if point is None else None
        self.device = device_facts(config["trainer"]["accelerator"])
        self.ranks = 1 if joined_rank() is not None else int(config["trainer"]["devices"])
        """Processes to start; this one trains by itself where it is 1."""
        self.threads = set_threads(config["trainer"]["threads"], processes=max(self.ranks, local_ranks()))

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
        trained = self.point is not None and epochs_done >= max_epochs
        if trained and directory.load_status().get("ended"):
            return self._end(self._load(), "it was finished before, nothing is left to train", max_epochs)
        loss = build_loss(config, plan, trust=True)
        prepared = prepare_dataset(opened, plan, needs=frozenset(getattr(loss, "needs", frozenset())))
        loss = over_partial_labels(loss, prepared.annotated)
        write_json(directory.split, prepared.roles.to_json())
        life = Life(
            max_epochs,
            self.point.path if self.point else None,
            train=tuple(zip(opened.cases("train"), prepared.train, strict=True)),
            tuning=tuple(zip(opened.cases("tuning"), prepared.tuning, strict=True)),
        )
        uploader = open_copy(config, directory)
        if self.ranks > 1:
            self._require_ranks(plan, callbacks)
            parts, network = None, build_network(config, plan, trust=True, restored=True)  # to be measured
        else:
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
                    (lambda *_: draw_snapshot(directory, config, life.tuning), every),
                ],
                callbacks=callbacks,
                budget=self._budget(),
                restored=self.point is not None,
            )
            network = parts.module.network
        begun: list[str] = []
        if self.weights is not None:
            begun = self.weights.write(directory, self.weights.put_into(network, config, plan))
        averaged = plan.ema_decay > 0
        size = checkpoint_bytes(network, optimizer=config["optimizer"], averaged=averaged)
        require_room(directory.checkpoints, checkpoint=size)
        if not trained:
            memory = require_memory(
                config,
                plan,
                network,
                loss=loss,
                opened=opened,
                prepared=prepared,
                device=self.device,
                started=self.ranks,
                joined=(joined_world(), local_ranks()),
            )
            ranks = max(self.ranks, joined_world())
            device = device_text(self.device, self.threads, ranks=ranks)
            facts = start_facts(
                config,
                directory,
                opened=opened,
                plan=plan,
                network=network,
                device=device,
                max_epochs=max_epochs,
                point=self.point,
                changes=self.changes,
                ranks=ranks,
                memory=memory,
                weights=begun,
                more_warnings=self.weights.warnings(prepared.roles) if self.weights else (),
            )
            print(start_banner(facts), flush=True)
        if uploader:
            begin_copy(uploader, config, directory, opened=opened, roles=prepared.roles, plan=plan, device=self.device)
        try:
            directory.save_environment()
            directory.save_status("running", run=directory.name, max_epochs=max_epochs)
            if trained and not self._unscored(life, plan):
                # A life that died after its last epoch has left its pointers, tables, pictures and copy undone.
                kept = config["checkpoint"]
                refresh(directory.checkpoints, top_k=kept["top_k"], keep=kept["keep"])
                reason = ""
            else:
                reason = self._fit(life, parts, uploader)
            selected = self._load()
            draw_run_curves(directory)
            score_tuning(selected, life.tuning, overlays=config["overlays"]["cases"])
            return self._end(selected, reason or f"all {max_epochs} epochs are done", max_epochs, uploader=uploader)
        except Preempted as error:
            end_at_once()
            self._interrupted("preempted", error.why, uploader)
            raise
        except BaseException as error:
            told = f"{error.what} ({error.where})" if isinstance(error, SegkitError) else repr(error)
            told = "; ".join([told, *getattr(error, "__notes__", [])])
            self._interrupted("failed", told, uploader)
            raise

    def _load(self, checkpoint: str = "selected") -> TrainedRun:
        accelerator = self.config["trainer"]["accelerator"]
        return load(self.directory.path, checkpoint=checkpoint, accelerator=accelerator, trust=True)

    def _require_ranks(self, plan: Plan, callbacks: Sequence[Callback]) -> None:
        """Refuse what cannot be trained by several processes, before any is started."""
        samples_of_a_rank(plan.batch_size, self.ranks)
        key, present = f"trainer.devices={self.ranks}", torch.cuda.device_count()
        if self.device.kind == "cuda" and self.ranks > present:
            raise UsageError("There are not so many devices.", where=key, why=f"{present} GPUs are visible")
        if self.device.kind == "mps":
            raise UsageError("There is one device.", where=key, mend="trainer.devices=1")
        if callbacks:
            why = "callbacks of this process cannot be sent to the processes that train"
            raise UsageError("Callbacks need one device.", where=key, why=why, mend="trainer.devices=1, or torchrun")

    def _decide(self) -> tuple[Opened, Plan]:
        """Roles and plan: those of the run where it has them, else made now and written."""
        config, directory = self.config, self.directory
        opened, plan = decide(config, directory, self.device, measure=self._measured)
        directory.save_config(config)
        return opened, plan

    def _measured(self, opened: Opened, plan: Plan) -> Plan:
        """At the first start: the plan with what has to be timed before it can be decided."""
        if joined_rank() is not None:
            if self.config["trainer"]["budget"] is not None:
                why = "under torchrun the steps of a budget would have to be timed by all ranks together"
                raise UsageError(
                    "A budget needs one process.", where="trainer.budget", why=why, mend="trainer.max_steps="
                )
            return plan
        if not worth_timing(self.config, plan, self.device):
            return plan
        loss = build_loss(self.config, plan, trust=True)
        prepared = prepare_dataset(opened, plan, needs=frozenset(getattr(loss, "needs", frozenset())))
        loss = over_partial_labels(loss, prepared.annotated)
        network = build_network(self.config, plan, trust=True, restored=True)  # to be measured
        # A rehearsal is a training: what would not fit is refused before it, not found out by it.
        require_memory(self.config, plan, network, loss=loss, opened=opened, prepared=prepared, device=self.device)
        return measured(
            plan,
            self.config,
            device=self.device,
            prepared=prepared,
            loss=loss,
            run=self.directory,
            spent_s=self._spent_s,
        )

    def _spent_s(self) -> float:
        return time.monotonic() - self.started

    def _budget(self) -> BudgetWatch | None:
        """What keeps the training within its seconds; None where it has no budget."""
        budget = Budget.read(self.directory)
        if budget is None:
            return None
        return BudgetWatch(budget.budget_s, ending_s=budget.ending_s, max_steps=budget.max_steps, spent_s=self._spent_s)

    def _unscored(self, life: Life, plan: Plan) -> bool:
        """Whether a life that died after its last epoch has left checkpoints to validate apart."""
        if self.config["validation"]["where"] == "here" or not life.tuning:
            return False
        every, steps = plan.validation_every_n_epochs, plan.steps_per_epoch
        return bool(unscored(load_index(self.directory.checkpoints), every_n_epochs=every, steps_per_epoch=steps))

    def _fit(self, life: Life, parts: Components | None, uploader: Uploader | None) -> str:
        """Train, here or by ranks."""
        if self.point is not None:
            rewind_to(self.directory, self.point)  # before the journals: a kill between the two loses no row
        Journal(self.directory.metrics, self.directory.timings).cut(self.point.entry.n if self.point else 0)
        if self.config["validation"]["where"] == "apart":
            life.write_tuning(self.directory)
        if parts is None:
            life.write(self.directory)
            return train_on_ranks(self.directory, size=self.ranks, tick=_now_and_then(uploader))
        if joined_rank() is None:
            return fit(parts, checkpoint=life.checkpoint)
        life.write(self.directory)
        announce(self.directory.path)
        reason = fit(parts, checkpoint=life.checkpoint)
        remove_tree(self.directory.ranks)  # every rank has trained to the end: none reads it any more
        return reason

    def _interrupted(self, state: Any, reason: str, uploader: Uploader | None) -> None:  # noqa: ANN401
        """Write down what ended the run, before that goes on its way."""
        try:
            self.directory.save_status(state, run=self.directory.name, reason=reason)
        except OSError as error:  # the disk may be what ended it; the reason must not be lost over that
            _logger.warning("%s could not be written: %s", self.directory.status, error)
        if uploader:
            uploader.end("KILLED" if state == "preempted" else "FAILED", reason=reason, timeout_s=10.0)

    def _end(
        self, trained: TrainedRun, reason: str, max_epochs: int, *, uploader: Uploader | None = None
    ) -> TrainedRun:
        """Write the status, finish the copy, print the end block."""
        directory, selection = self.directory, trained.selection
        folder = checkpoint_path(directory.checkpoints, selection.entry.step)
        facts = {
            "run": directory.name,
            "reason": reason,
            "epoch": selection.entry.epoch,
            "max_epochs": max_epochs,
            "selected": folder.name,
            "selected_because": selection.reason,
            "selection_score_optimistic": selection.entry.score,
        }
        directory.save_status("finished", **facts)
        write_report(directory)
        if uploader:
            finish_copy(uploader, reason=reason)
        directory.save_status("finished", **facts, ended=True)  # only now is nothing left to do
        minutes = (time.monotonic() - self.started) / 60
        if self.config["trainer"]["profiler"] == "step":
            print(profile_block(directory.profile))
        print(end_block(end_facts(directory, selection, reason=reason, minutes=minutes)), flush=True)
        return trained


def with_absolute_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same configuration with every path absolute, so that the run is found again from any directory."""

    def absolute(value: str | None) -> str | None:
        return None if value is None else str(Path(value).expanduser().absolute())

    data, split = config["data"], config["data"]["split"]
    groups = data["groups"]
    runs = Path(str(absolute(config["paths"]["runs"])))
    weights = None if config["weights"] is None else str(place_of_weights(config["weights"], runs))
    if groups is not None and not groups.startswith("regex:"):
        groups = absolute(groups)
    data = {
        **data,
        "root": absolute(data["root"]),
        "groups": groups,
        "split": {**split, "file": absolute(split["file"])},
    }
    return {
        **config,
        "weights": weights,
        "data": data,
        "paths": {name: absolute(path) for name, path in config["paths"].items()},
    }


def _default_name(config: Mapping[str, Any]) -> str:
    data = config["data"]
    dataset = data["name"] or Path(data["root"] or sample_root()).expanduser().absolute().name
    return default_name(dataset, config["experiment"], datetime.now())


def _now_and_then(uploader: Uploader | None) -> Callable[[], None]:
    """Bring the copy up to date while others train, every so many seconds."""
    last = time.monotonic()

    def tick() -> None:
        nonlocal last
        if uploader is not None and time.monotonic() - last > _SYNC_S:
            last = time.monotonic()
            uploader.sync()

    return tick

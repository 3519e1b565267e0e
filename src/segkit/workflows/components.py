"""The parts of a training, each built from configuration, plan and run folder."""

import inspect
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.distributed import is_torchelastic_launched
from torch.nn.parallel import DistributedDataParallel

from segkit.callbacks.budget_watch import BudgetWatch
from segkit.callbacks.checkpointing import Checkpointing, DirectoryCheckpointIO
from segkit.callbacks.consumption import Consumption
from segkit.callbacks.data_wait import DataWait
from segkit.callbacks.divergence import Limits
from segkit.callbacks.early_stopping import EarlyStopping, Patience
from segkit.callbacks.evaluation_apart import EvaluationApart
from segkit.callbacks.evaluation_queue import EvaluationQueue
from segkit.callbacks.nonfinite_guard import NonFiniteGuard
from segkit.callbacks.notes import Notes
from segkit.callbacks.preemption import Preemption, StopRequest
from segkit.callbacks.progress import progress
from segkit.callbacks.recording import Recording
from segkit.callbacks.shared_buffers import SharedBuffers
from segkit.callbacks.snapshots import Snapshot, Snapshots
from segkit.callbacks.step_profile import StepProfile
from segkit.callbacks.throughput import Throughput
from segkit.callbacks.weight_averaging import WeightAveraging
from segkit.configuration import build_network, build_optimizer, build_recipe, build_scheduler
from segkit.data.datamodule import SegmentationDataModule
from segkit.data.pipeline import Prepared, loader_workers
from segkit.data.stored_case import StoredCase
from segkit.evaluation import EvaluationSettings
from segkit.module.segmentation import SegmentationModule
from segkit.networks.checkpointing import checkpoint_stages
from segkit.networks.compilation import Forward, compile_network
from segkit.networks.memory_format import to_device
from segkit.ops.freed_memory import keep_freed_memory
from segkit.ops.intensity import statistics
from segkit.ops.keyed_random import torch_seed
from segkit.planning.device import DeviceFacts
from segkit.planning.plan import Plan
from segkit.runs.directory import RunDirectory
from segkit.runs.manifest import checkpoint_path
from segkit.tracking.journal import Journal, read_rows
from segkit.workflows.out_of_memory import is_out_of_memory

_logger = logging.getLogger(__name__)

WEIGHTS_STREAM = 6
_STATISTICS_CASES = 16
"""Cases looked at for the prepared data's mean and spread: enough for a note, cheap for any data set."""


@dataclass(frozen=True)
class Components:
    """What a training is made of.

    Args:
        module: Network, loss, optimizer.
        datamodule: Loaders and n.
        trainer: Lightning's, with all callbacks.
        early_stopping: Knows why training stopped; None where it is off.
        budget: Keeps the training within its seconds; None where it has no budget.
    """

    module: SegmentationModule
    datamodule: SegmentationDataModule
    trainer: Trainer
    early_stopping: EarlyStopping | None
    budget: BudgetWatch | None = None

    @property
    def reason(self) -> str:
        """Why training ended before its last epoch; empty where it did not."""
        reasons = (each.reason for each in (self.early_stopping, self.budget) if each is not None)
        return next((reason for reason in reasons if reason), "")


def build_components(
    config: Mapping[str, Any],
    *,
    plan: Plan,
    device: DeviceFacts,
    prepared: Prepared,
    loss: torch.nn.Module,
    run: RunDirectory,
    max_epochs: int,
    snapshots: Sequence[tuple[Snapshot, int]] = (),
    callbacks: Sequence[Callback] = (),
    budget: BudgetWatch | None = None,
    restored: bool = False,
) -> Components:
    """Everything that `Trainer.fit` takes.

    Args:
        config: Resolved configuration.
        plan: The run's plan.
        device: Where it trains.
        prepared: Training and tuning cases.
        loss: The loss of one level.
        run: The run folder.
        max_epochs: Epochs in all.
        snapshots: (function, every n epochs) to call after an epoch and its checkpoint.
        callbacks: More of the caller's.
        budget: What keeps the training within its seconds.
        restored: Whether a checkpoint's weights will take the place of the network's first ones.
    """
    if device.kind == "cpu":
        keep_freed_memory()
    # Weights depend on the seed alone, not on what drew random numbers before.
    torch.manual_seed(torch_seed(config["seed"], 0, WEIGHTS_STREAM))
    network = build_network(config, plan, trust=True, restored=restored)
    to_device(network, device.kind, channels_last=plan.channels_last)
    trainer = config["trainer"]
    if trainer["gradient_checkpointing"]:
        checkpoint_stages(network)
    module = SegmentationModule(
        network,
        loss,
        plan=plan,
        optimizer=build_optimizer(config, plan, trust=True),
        scheduler=build_scheduler(config, trust=True),
        total_steps=max_epochs * plan.steps_per_epoch,
        settings=EvaluationSettings.from_config(config),
        precision=plan.precision,
        seed=config["seed"],
        log_every_n_steps=trainer["log_every_n_steps"],
        compiled=_compiled(network, plan, device) if plan.compile else None,
    )
    datamodule = SegmentationDataModule(
        prepared.train,
        prepared.tuning,
        plan=plan,
        recipe=build_recipe(config, trust=True),
        seed=config["seed"],
        needs=frozenset(getattr(loss, "needs", frozenset())),
        workers=loader_workers(config["data"]["workers"], device),
        persistent_workers=config["data"]["persistent_workers"],
        foreground_oversampling=config["data"]["foreground_oversampling"],
        order=config["data"]["order"],
        accumulate=trainer["accumulate"],
        timeout_s=config["data"]["timeout_s"],
        on_error=config["data"]["on_error"],
        max_skipped=config["data"]["max_skipped"],
    )
    stopping, stop = _early_stopping(config), StopRequest()
    module.stopping = stop.poll
    ours = _callbacks(config, plan, stopping, stop, prepared=prepared, run=run, snapshots=snapshots)
    return Components(
        module=module,
        datamodule=datamodule,
        trainer=Trainer(
            accelerator=trainer["accelerator"],
            **_processes(device),
            precision=plan.precision,
            max_epochs=max_epochs,
            accumulate_grad_batches=trainer["accumulate"],
            gradient_clip_val=trainer["gradient_clip"],
            check_val_every_n_epoch=plan.validation_every_n_epochs,
            limit_val_batches=None if prepared.tuning and config["validation"]["where"] == "here" else 0,
            num_sanity_val_steps=0,
            log_every_n_steps=trainer["log_every_n_steps"],
            deterministic=config["deterministic"],
            profiler=_profiler(config, module, run),
            callbacks=[*callbacks, *([budget] if budget is not None else []), *ours],
            logger=False,
            enable_model_summary=False,
            enable_progress_bar=sys.stderr.isatty(),
            use_distributed_sampler=False,
            default_root_dir=run.path,
        ),
        early_stopping=stopping,
        budget=budget,
    )


def _compiled(network: nn.Module, plan: Plan, device: DeviceFacts) -> Forward | None:
    """The network compiled for the plan's batch; None, with a warning, where that fails: only the speed is another."""
    if is_torchelastic_launched():
        _logger.warning("plan.compile=true: the network is not compiled where several ranks train")
        return None
    example = torch.zeros((plan.batch_size, plan.in_channels, *plan.patch_size), device=device.kind)
    found = compile_network(network, example, precision=plan.precision, is_out_of_memory=is_out_of_memory)
    if not found.compiled:
        _logger.warning("The network is trained as it is: %s", found.reason)
        return None
    return found.forward


def _profiler(config: Mapping[str, Any], module: SegmentationModule, run: RunDirectory) -> StepProfile | str | None:
    """What listens to the hooks of the loop: the first rank writes it down."""
    name: str | None = config["trainer"]["profiler"]
    if name != "step":
        return name
    folder = run.profile if os.environ.get("RANK", "0") == "0" else None
    profile = StepProfile(folder, batches_per_step=config["trainer"]["accumulate"])
    profile.watch_loss(module.loss)
    return profile


def _early_stopping(config: Mapping[str, Any]) -> EarlyStopping | None:
    stopping = config["early_stopping"]
    if stopping["patience"] is None:
        return None
    rule = Patience(stopping["patience"], min_delta=stopping["min_delta"], warmup_epochs=stopping["warmup_epochs"])
    return EarlyStopping(rule, cooldown_epochs=stopping["cooldown_epochs"])


def _callbacks(
    config: Mapping[str, Any],
    plan: Plan,
    stopping: EarlyStopping | None,
    stop: StopRequest,
    *,
    prepared: Prepared,
    run: RunDirectory,
    snapshots: Sequence[tuple[Snapshot, int]],
) -> list[Callback]:
    """In the order in which they are called; Lightning moves those that write checkpoints to the end."""
    journal = Journal(run.metrics, run.timings)
    throughput = Throughput(journal)
    recording = Recording(journal, every_n_steps=config["trainer"]["log_every_n_steps"])
    checkpoint = config["checkpoint"]
    checkpointing = Checkpointing(
        run.checkpoints,
        top_k=checkpoint["top_k"],
        keep=checkpoint["keep"],
        every_s=checkpoint["every_s"],
        before_save=journal.sync,
        stop=stop,
    )
    apart = _evaluation_apart(config, plan, checkpointing, journal, run=run) if prepared.tuning else None
    if stopping is not None and apart is not None:
        stopping.scores = apart.scores
    warmup = config["early_stopping"]["warmup_epochs"]
    return [
        Consumption(),
        SharedBuffers(),
        *([WeightAveraging(plan.ema_decay)] if plan.ema_decay else []),
        NonFiniteGuard(
            run.path / "nonfinite",
            journal,
            limits=Limits(in_a_row=config["nonfinite"]["in_a_row"], share=config["nonfinite"]["share"]),
            every_n_steps=config["trainer"]["log_every_n_steps"],
        ),
        throughput,
        DataWait(lambda: throughput.latest),
        Notes(prepared=prepared_statistics(prepared.train), warmup_epochs=warmup),
        *([stopping] if stopping is not None else []),
        Preemption(stop.ask),
        recording,
        *progress(lambda: recording.latest | throughput.latest | (apart.latest if apart is not None else {})),
        checkpointing,
        *([apart] if apart is not None else []),
        *(Snapshots(function, every_n_epochs=every) for function, every in snapshots),
    ]


def _evaluation_apart(
    config: Mapping[str, Any], plan: Plan, checkpointing: Checkpointing, journal: Journal, *, run: RunDirectory
) -> EvaluationApart | None:
    """Validation in a process of its own; None where this process validates."""
    if config["validation"]["where"] == "here":
        return None

    def command(step: int) -> list[str]:
        name = checkpoint_path(run.checkpoints, step).name
        return [sys.executable, "-m", "segkit._evaluator", str(run.path), name, str(os.getpid())]

    return EvaluationApart(
        checkpointing,
        EvaluationQueue(run.evaluations, command, timeout_s=float(config["validation"]["timeout_s"])),
        journal,
        measured=lambda: read_rows(run.metrics),
        every_n_epochs=plan.validation_every_n_epochs,
        steps_per_epoch=plan.steps_per_epoch,
    )


def prepared_statistics(cases: Sequence[StoredCase]) -> dict[str, float]:
    """Mean, spread and lowest value of prepared images inside `valid`, averaged over cases and channels."""
    rows = []
    for stored in cases[:: max(1, len(cases) // _STATISTICS_CASES)]:
        case = stored.load()
        valid = None if case.valid is None else torch.tensor(case.valid)[None, None]
        found = statistics(torch.tensor(case.image)[None], valid)
        rows.append([float(found.mean.mean()), float(found.std.mean()), float(found.minimum.amin())])
    means = torch.tensor(rows).mean(dim=0).tolist()
    return dict(zip(("mean", "std", "min"), means, strict=True))


def _processes(device: DeviceFacts) -> dict[str, Any]:
    """How many processes train and how they find one another: as the environment of a rank says, else this one alone.

    Alone means alone: Lightning would otherwise take a batch system's variables for an order.
    """
    if not is_torchelastic_launched():
        return {"devices": 1, "plugins": [DirectoryCheckpointIO(), LightningEnvironment()]}
    local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    backend = "nccl" if device.kind == "cuda" else "gloo"
    return {
        "devices": local,
        "num_nodes": world // local,
        "strategy": DDPStrategy(process_group_backend=backend, **_no_copying_of_buffers()),
        "plugins": [DirectoryCheckpointIO(), TorchElasticEnvironment()],
    }


def _no_copying_of_buffers() -> dict[str, Any]:
    """See SharedBuffers; the setting's name has changed between two versions of torch."""
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    return {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}


def set_threads(threads: int | None, *, processes: int = 1) -> int:
    """CPU threads of torch: as asked, else this process' share of the cores it may use; returns how many."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = threads or max(1, cores // processes)
    torch.set_num_threads(count)
    return count

"""The parts of a training, each built from configuration, plan and run folder."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from segkit.callbacks.checkpointing import Checkpointing, DirectoryCheckpointIO
from segkit.callbacks.consumption import Consumption
from segkit.callbacks.early_stopping import EarlyStopping, Patience
from segkit.callbacks.notes import Notes
from segkit.callbacks.preemption import Preemption
from segkit.callbacks.progress import progress
from segkit.callbacks.recording import Recording
from segkit.callbacks.snapshots import Snapshot, Snapshots
from segkit.callbacks.throughput import Throughput
from segkit.callbacks.weight_averaging import WeightAveraging
from segkit.configuration import build_network, build_optimizer, build_recipe, build_scheduler
from segkit.data.datamodule import SegmentationDataModule
from segkit.data.pipeline import Prepared, loader_workers
from segkit.data.stored_case import StoredCase
from segkit.evaluation import EvaluationSettings
from segkit.module.segmentation import SegmentationModule
from segkit.networks.memory_format import to_device
from segkit.ops.intensity import statistics
from segkit.ops.keyed_random import torch_seed
from segkit.planning.device import DeviceFacts
from segkit.planning.plan import Plan
from segkit.runs.directory import RunDirectory
from segkit.tracking.journal import Journal

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
    """

    module: SegmentationModule
    datamodule: SegmentationDataModule
    trainer: Trainer
    early_stopping: EarlyStopping | None


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
    """
    # Weights depend on the seed alone, not on what drew random numbers before.
    torch.manual_seed(torch_seed(config["seed"], 0, WEIGHTS_STREAM))
    network = to_device(build_network(config, plan, trust=True), device.kind, precision=plan.precision)
    trainer = config["trainer"]
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
    )
    stopping = _early_stopping(config)
    return Components(
        module=module,
        datamodule=datamodule,
        trainer=Trainer(
            accelerator=trainer["accelerator"],
            devices=trainer["devices"],
            precision=plan.precision,
            max_epochs=max_epochs,
            accumulate_grad_batches=trainer["accumulate"],
            gradient_clip_val=trainer["gradient_clip"],
            check_val_every_n_epoch=plan.validation_every_n_epochs,
            limit_val_batches=None if prepared.tuning else 0,
            num_sanity_val_steps=0,
            log_every_n_steps=trainer["log_every_n_steps"],
            deterministic=config["deterministic"],
            profiler=trainer["profiler"],
            callbacks=[*callbacks, *_callbacks(config, stopping, prepared=prepared, run=run, snapshots=snapshots)],
            plugins=[DirectoryCheckpointIO()],
            logger=False,
            enable_model_summary=False,
            enable_progress_bar=sys.stderr.isatty(),
            use_distributed_sampler=False,
            default_root_dir=run.path,
        ),
        early_stopping=stopping,
    )


def _early_stopping(config: Mapping[str, Any]) -> EarlyStopping | None:
    stopping = config["early_stopping"]
    if stopping["patience"] is None:
        return None
    rule = Patience(stopping["patience"], min_delta=stopping["min_delta"], warmup_epochs=stopping["warmup_epochs"])
    return EarlyStopping(rule, cooldown_epochs=stopping["cooldown_epochs"])


def _callbacks(
    config: Mapping[str, Any],
    stopping: EarlyStopping | None,
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
    )
    averaging = config["trainer"]["ema_decay"]
    warmup = config["early_stopping"]["warmup_epochs"]
    return [
        Consumption(),
        *([WeightAveraging(averaging)] if averaging is not None else []),
        throughput,
        Notes(prepared=prepared_statistics(prepared.train), warmup_epochs=warmup),
        *([stopping] if stopping is not None else []),
        Preemption(checkpointing.preempt),
        recording,
        *progress(lambda: recording.latest | throughput.latest),
        checkpointing,
        *(Snapshots(function, every_n_epochs=every) for function, every in snapshots),
    ]


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


def set_threads(threads: int | None) -> int:
    """CPU threads of torch: as asked, else the cores this process may use; returns how many."""
    count = threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    torch.set_num_threads(count)
    return count

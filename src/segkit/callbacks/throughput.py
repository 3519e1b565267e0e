"""How fast, and how much of the time the device waited for data."""

import resource
import sys
import time
from collections.abc import Mapping
from typing import Protocol, cast, runtime_checkable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import PassThroughProfiler, Profiler

from segkit.callbacks.position import position


@runtime_checkable
class TimingSink(Protocol):
    """Where measured times go."""

    def timing(self, values: Mapping[str, float], *, n: int, step: int, epoch: int) -> None:
        """Write values that differ from one life to the next."""


class Profiled(Protocol):
    """The trainer's attribute that Lightning sets without declaring it."""

    profiler: Profiler


class WaitClock(PassThroughProfiler):
    """Adds up the seconds in which the training loop waited for its next batch."""

    def __init__(self) -> None:
        super().__init__()
        self.waited = 0.0
        self._since: float | None = None

    def start(self, action_name: str) -> None:
        """Start the clock where a batch is fetched."""
        if action_name.endswith("train_dataloader_next"):
            self._since = time.perf_counter()

    def stop(self, action_name: str) -> None:
        """Stop it where the batch is there."""
        if action_name.endswith("train_dataloader_next") and self._since is not None:
            self.waited += time.perf_counter() - self._since
            self._since = None


class Throughput(Callback):
    """Measures each epoch and writes it down.

    `latest` holds the last epoch's values: `time/epoch_s`, `time/train_s` (without validation), `time/data_wait`
    (share of the training time), `time/samples_per_s`, `memory/process_gb` (peak so far), `memory/device_gb` (peak
    of the epoch).

    Args:
        journal: Where the values go.
    """

    def __init__(self, journal: TimingSink) -> None:
        self.journal = journal
        self.latest: dict[str, float] = {}
        self._clock = WaitClock()
        self._epoch_start = self._validation_start = time.perf_counter()
        self._validation_s = 0.0
        self._n = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Listen to the fetching of batches, unless the user profiles."""
        profiled = cast("Profiled", trainer)
        if stage == "fit" and isinstance(profiled.profiler, PassThroughProfiler):
            profiled.profiler = self._clock

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Start the epoch's clock; an epoch that is resumed has no start of its own."""
        self._begin(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Start the epoch's clock."""
        self._begin(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Take validation apart."""
        self._validation_start = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Take validation apart."""
        self._validation_s += time.perf_counter() - self._validation_start

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the epoch's values."""
        where = position(trainer)
        seconds = time.perf_counter() - self._epoch_start
        train = max(seconds - self._validation_s, 1e-9)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        self.latest = {
            "time/epoch_s": seconds,
            "time/train_s": train,
            "time/data_wait": min(self._clock.waited / train, 1.0),
            "time/samples_per_s": (where.n - self._n) / train,
            "memory/process_gb": peak / 1e9,
        }
        if pl_module.device.type == "cuda":
            self.latest["memory/device_gb"] = torch.cuda.max_memory_allocated(pl_module.device) / 1e9
            torch.cuda.reset_peak_memory_stats(pl_module.device)
        if trainer.is_global_zero:
            self.journal.timing(self.latest, n=where.n, step=where.step, epoch=where.epoch)

    def _begin(self, trainer: Trainer) -> None:
        self._epoch_start = time.perf_counter()
        self._validation_s = 0.0
        self._clock.waited = 0.0
        self._n = position(trainer).n

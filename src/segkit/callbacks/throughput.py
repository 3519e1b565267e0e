"""How fast, and how much of the time the device waited for data."""

import resource
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast, runtime_checkable

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


@runtime_checkable
class Mark(Protocol):
    """A moment in the work of a device, such as `torch.cuda.Event`."""

    def synchronize(self) -> None:
        """Wait until the device has come to it."""

    def elapsed_time(self, later: Any) -> float:  # noqa: ANN401  another of its kind
        """Milliseconds from here to a later one, by the device's clock."""


class WaitClock(PassThroughProfiler):
    """Adds up the seconds in which the device waited for the next batch.

    On a CPU that is the time of the fetch. A GPU is given its work ahead of time and may still be at it while the host
    fetches. So two marks are put into its queue, before and after the fetch: it reaches the first one when it has
    nothing left to do, the second one when there is a batch again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mark: Callable[[], Mark] | None = None
        self._seconds = 0.0
        self._since: float | None = None
        self._marks: list[tuple[Mark, Mark]] = []
        self._begun: Mark | None = None

    @property
    def waited(self) -> float:
        """Seconds since `reset`; waits for the device, so for the end of an epoch."""
        if self._marks:
            self._marks[-1][1].synchronize()
            self._seconds += sum(begun.elapsed_time(ended) for begun, ended in self._marks) / 1000
            self._marks = []
        return self._seconds

    def reset(self) -> None:
        """Begin at zero."""
        self._seconds, self._marks = 0.0, []

    def start(self, action_name: str) -> None:
        """A batch is fetched."""
        if action_name.endswith("train_dataloader_next"):
            self._since = time.perf_counter()
            self._begun = None if self.mark is None else self.mark()

    def stop(self, action_name: str) -> None:
        """It is there."""
        if not action_name.endswith("train_dataloader_next") or self._since is None:
            return
        if self.mark is None or self._begun is None:
            self._seconds += time.perf_counter() - self._since
        else:
            self._marks.append((self._begun, self.mark()))
        self._since = None


def _cuda_mark() -> Mark:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


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
        """Listen to the fetching of batches, unless the user has Lightning's own profilers listen."""
        profiled = cast("Profiled", trainer)
        if stage == "fit" and isinstance(profiled.profiler, WaitClock):
            self._clock = profiled.profiler
        elif stage == "fit" and isinstance(profiled.profiler, PassThroughProfiler):
            profiled.profiler = self._clock

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the epoch's clock; an epoch that is resumed has no start of its own."""
        self._clock.mark = _cuda_mark if pl_module.device.type == "cuda" else None
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
        self._clock.reset()
        self._n = position(trainer).n

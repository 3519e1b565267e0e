"""Says, once in a life, that the device waits for data, and which key would change that by how much."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from segkit.callbacks.position import position
from segkit.planning.device import usable_cores

ENOUGH = 0.10
"""Share of the training time from which on waiting is worth a warning."""
_WORTH = 1.05
_logger = logging.getLogger(__name__)


class Loads(Protocol):
    """A datamodule whose batches come from loader processes."""

    workers: int

    def room_for(self, workers: int) -> int:
        """How many of so many further loader processes there is shared memory for."""


@dataclass(frozen=True)
class Loading:
    """What loads and what it has at its disposal.

    Args:
        workers: Loader processes; 0 where the training process loads between two steps.
        cores: Processor cores of this training process and its loader processes.
        threads: Cores that the training itself keeps busy: one beside an accelerator.
        room: The most loader processes that there is shared memory for.
    """

    workers: int
    cores: int
    threads: int
    room: int


@dataclass(frozen=True)
class Advice:
    """What to do, and how many times as fast epochs become at most."""

    text: str
    gain: float


def advise(share: float, loading: Loading) -> Advice:
    """What would shorten the waiting.

    Of a step's time 1, w is waiting and D = 1 - w is computing, so that no gain exceeds 1/D. With n > 0 processes a
    batch takes n processes' time 1, so k of them deliver k/n times as fast; without one a batch is loaded in w, beside
    which k of them need w/k. Whichever takes longer, loading or computing, decides.

    Args:
        share: w in (0, 1).
        loading: As it is now.
    """
    w, n = min(share, 0.99), loading.workers
    most = 1 / (1 - w)
    spare = max(0, loading.cores - loading.threads)
    wanted = math.ceil(most * n - 1e-9) if n else math.ceil(w * most - 1e-9)
    best = min(wanted, spare, loading.room)
    if best > n:
        gain = min(most, best / n) if n else 1 / max(w / best, 1 - w)
        if gain >= _WORTH:
            return Advice(f"data.workers={best} (now {n})", gain)
    if min(wanted, spare) > max(n, loading.room):
        return Advice(
            f"there is shared memory for {loading.room} loader processes only: a container started with --shm-size=8g, "
            f"and data.workers={min(wanted, spare)} (now {n}),",
            most if n == 0 else min(most, min(wanted, spare) / n),
        )
    if n > spare:
        return Advice(
            f"data.workers={spare} (now {n}: with the training they are more than {loading.cores} cores)", most
        )
    fewer = loading.threads - 1
    if n == 0 and spare == 0 and fewer and loading.room:
        gain = 1 / max(w, (1 - w) * loading.threads / fewer)
        if gain >= _WORTH:
            return Advice(f"trainer.threads={fewer} data.workers=1 (now {loading.threads} and 0)", gain)
    return Advice(f"all {loading.cores} cores are at work: paths.cache on a faster disk, or more cores,", most)


class DataWait(Callback):
    """Warns after the first epoch with much waiting; a life's first epoch, in which everything starts, is left out.

    Give it to the trainer after `Throughput`.

    Args:
        facts: Gives the latest epoch's `time/data_wait`: `Throughput.latest`.
    """

    def __init__(self, facts: Callable[[], Mapping[str, float]]) -> None:
        self.facts = facts
        self._epochs, self._said = 0, False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the epoch."""
        self._epochs += 1
        share = self.facts().get("time/data_wait", 0.0)
        if self._said or self._epochs == 1 or share <= ENOUGH or not trainer.is_global_zero:
            return
        self._said = True
        datamodule = cast("Loads", trainer.datamodule)  # type: ignore[attr-defined]
        cores = max(1, usable_cores() // trainer.num_devices)
        threads = torch.get_num_threads() if pl_module.device.type == "cpu" else 1
        # What the present processes have under way takes its room already.
        room = datamodule.workers + datamodule.room_for(cores)
        loading = Loading(datamodule.workers, cores, min(threads, cores), room)
        advice = advise(share, loading)
        _logger.warning(
            "The device waited %.0f %% of epoch %d for data: %s would make epochs up to %.1f times as fast.",
            *(100 * share, position(trainer).epoch, advice.text, advice.gain),
        )

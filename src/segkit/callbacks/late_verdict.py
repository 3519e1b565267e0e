"""The judgement of an optimizer step whose result the host learns of one step later, so that nobody waits.

The device judges, and leaves the step out by itself. Its verdict travels to the host while the next batch is computed;
there, what only the host knows is put right: the place in the schedule, the counts, the line about the batch.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from segkit.callbacks.position import Position
from segkit.ops.ranks import any_rank_tensor
from segkit.types import Batch


@runtime_checkable
class Settles(Protocol):
    """A callback that may not know yet what became of the latest optimizer step."""

    def settle(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for it, and put right what depends on it."""


@runtime_checkable
class TakesBack(Protocol):
    """A callback that has counted the latest optimizer step."""

    def take_back(self) -> None:
        """The step turns out to have been left out."""


def settle_all(trainer: Trainer) -> None:
    """Before a checkpoint: everything on the host agrees with the weights."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Settles):
            callback.settle(trainer, trainer.lightning_module)


class Arrival:
    """Numbers on their way from the device to the host; only `read` waits for them."""

    def __init__(self, values: Tensor) -> None:
        self._values = values.to("cpu", non_blocking=True)  # page-locked memory, where it comes from a GPU
        self._event: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(values.device))

    def read(self) -> list[float]:
        """The numbers."""
        if self._event is not None:
            self._event.synchronize()
        numbers: list[float] = self._values.tolist()
        return numbers


class SchedulePlace:
    """Where the learning rates stand, to be put back there.

    Args:
        optimizers: Whose rates.
        schedules: What moves them.
    """

    def __init__(self, optimizers: Sequence[Optimizer], schedules: Sequence[Any]) -> None:
        self._schedules: list[tuple[Any, dict[str, Any]]] = [(each, deepcopy(each.state_dict())) for each in schedules]
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        self._groups = [(group, deepcopy({k: v for k, v in group.items() if k != "params"})) for group in groups]

    def put_back(self) -> None:
        """As if the schedules had not been stepped since."""
        for schedule, state in self._schedules:
            schedule.load_state_dict(state)
        for group, values in self._groups:
            group.update(values)


class Trial:
    """One optimizer step before the device: its batches, and whether loss and gradient were finite after each."""

    def __init__(self) -> None:
        self._batches: list[Batch] = []
        self._losses: list[Tensor] = []
        self._bad: list[Tensor] = []

    def add(self, batch: Batch, *, loss: Tensor, norm: Tensor) -> None:
        """A batch, its loss and the norm that the gradient has with it."""
        self._batches.append(batch)
        self._losses.append(loss)
        self._bad.append(~(loss.isfinite().all() & norm.isfinite()))

    def close(self, trainer: Trainer, *, cases: Sequence[str]) -> "Verdict":
        """Judge: the step is left out on all ranks where one of them has found a batch that is not finite."""
        bad = torch.stack(self._bad)
        flag = any_rank_tensor(bad.any().float())
        numbers = torch.cat([flag[None].double(), bad.double(), torch.stack(self._losses).double().flatten()])
        place = SchedulePlace(trainer.optimizers, [config.scheduler for config in trainer.lr_scheduler_configs])
        return Verdict(flag, Arrival(numbers), tuple(self._batches), tuple(cases), place)


@dataclass
class Verdict:
    """What became of an optimizer step.

    Args:
        flag: 1 where it is left out, 0 where not; a float32 on the device.
        arrival: The flag, whether each batch was bad, and the loss of each.
        batches: Its batches.
        cases: Cases of all of them.
        schedule: Where the schedule stood before it.
        where: Where training stood when it was over; set then.
    """

    flag: Tensor
    arrival: Arrival
    batches: tuple[Batch, ...]
    cases: tuple[str, ...]
    schedule: SchedulePlace
    where: Position | None = None

    def read(self) -> tuple[bool, tuple[Batch, float] | None]:
        """Whether it was left out, and this rank's first bad batch with its loss, as the trainer had it."""
        left_out, *numbers = self.arrival.read()
        bad, losses = numbers[: len(self.batches)], numbers[len(self.batches) :]
        found = next((i for i, each in enumerate(bad) if each), None)
        return bool(left_out), None if found is None else (self.batches[found], losses[found])

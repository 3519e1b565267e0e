"""Where a training stands: the three counters that everything written down carries."""

from dataclasses import dataclass
from typing import Protocol, cast

from lightning.pytorch import Trainer


class CountsSamples(Protocol):
    """A datamodule that knows how many training samples were consumed."""

    n: int


@dataclass(frozen=True)
class Position:
    """A point of a training.

    Args:
        n: Training samples consumed.
        step: Optimizer steps taken.
        epoch: Number of the epoch that is running, from 1.
    """

    n: int
    step: int
    epoch: int


def position(trainer: Trainer) -> Position:
    """Where `trainer` stands; its datamodule must count samples in `n`."""
    datamodule = cast("CountsSamples", trainer.datamodule)  # type: ignore[attr-defined]
    return Position(n=int(datamodule.n), step=trainer.global_step, epoch=trainer.current_epoch + 1)

"""What a person sees while it trains: one line an epoch, and on a terminal a bar within the epoch."""

import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, TQDMProgressBar

from segkit.callbacks.position import position

_SHOWN = (
    ("loss", "train/loss_epoch"),
    ("dice", "train/dice"),
    ("val loss", "val/loss"),
    ("score", "val/score"),
)


@runtime_checkable
class Stream(Protocol):
    """What lines are written to."""

    def write(self, text: str, /) -> int:
        """Take a text."""

    def flush(self) -> None:
        """Show what was written."""

    def isatty(self) -> bool:
        """Whether a person looks on."""


def epoch_line(
    facts: Mapping[str, float], *, epoch: int, max_epochs: int | None, best: tuple[float, int] | None = None
) -> str:
    """One line about one epoch.

    Args:
        facts: What was measured; the known keys are shown where they are present.
        epoch: Its number, from 1.
        max_epochs: Of how many; None or negative where there is no end.
        best: Highest score so far and its epoch.
    """
    parts = [f"epoch {epoch}" + (f"/{max_epochs}" if max_epochs and max_epochs > 0 else "")]
    parts += [f"{name} {facts[key]:.4f}" for name, key in _SHOWN if key in facts]
    if "late/score" in facts:
        parts.append(f"score {facts['late/score']:.4f} (epoch {facts['late/epoch']:.0f})")
    if best is not None:
        parts.append(f"best {best[0]:.4f} (epoch {best[1]})")
    if "time/epoch_s" in facts:
        parts.append(f"{facts['time/epoch_s']:.1f} s, {facts.get('time/data_wait', 0.0):.0%} waiting for data")
    return "  ".join(parts)


class EpochLines(Checkpoint):
    """One line an epoch, on the first rank.

    It counts as a checkpoint callback only for its turn: given after `Recording`, it finds the epoch's values.

    Args:
        facts: Gives the latest epoch's values: `Recording.latest` and `Throughput.latest` together.
        write: Where a line goes.
    """

    def __init__(self, facts: Callable[[], Mapping[str, float]], *, write: Callable[[str], object]) -> None:
        self.facts, self.write = facts, write
        self._best: tuple[float, int] | None = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Write the line."""
        facts, epoch = self.facts(), position(trainer).epoch
        score = facts.get("val/score")
        if score is not None and (self._best is None or score > self._best[0]):
            self._best = (score, epoch)
        if trainer.is_global_zero:
            self.write(epoch_line(facts, epoch=epoch, max_epochs=trainer.max_epochs, best=self._best))

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the best score over."""
        self._best = state_dict["best"] and tuple(state_dict["best"])


def progress(facts: Callable[[], Mapping[str, float]], *, stream: Stream | None = None) -> list[Callback]:
    """The display that fits where `stream` (standard error by default) leads to.

    Give the trainer `enable_progress_bar=` whether it leads to a terminal, or Lightning adds a bar of its own.
    """
    target = stream or sys.stderr
    if target.isatty():
        bar = TQDMProgressBar(leave=False)
        return [bar, EpochLines(facts, write=bar.print)]

    def write(line: str) -> None:
        target.write(line + "\n")
        target.flush()

    return [EpochLines(facts, write=write)]

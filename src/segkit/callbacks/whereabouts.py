"""What a rank is doing, kept where it outlives the process: a rank that is killed can say nothing any more."""

import mmap
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from segkit.types import Batch, PreparedCase

_BYTES = 4096


class Whereabouts(Callback):
    """Notes each step and its cases in a small memory-mapped file; the kernel keeps what was noted last.

    Args:
        path: The file; made anew.
    """

    def __init__(self, path: Path) -> None:
        path.write_bytes(b"\0" * _BYTES)
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _BYTES)

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        batch: Batch,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """A training step begins."""
        self._note(f"training step {trainer.global_step + 1}", batch.case_id)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: object,  # noqa: ARG002
        batch: Batch,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """It is done; what may follow is a checkpoint."""
        self._note(f"after training step {trainer.global_step}", batch.case_id)

    def on_validation_batch_start(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        batch: PreparedCase | None,
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        """An image is validated."""
        self._note("validation", () if batch is None else (batch.case_id,))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """All are."""
        self._note("after validation", ())

    def _note(self, stage: str, cases: Sequence[str]) -> None:
        text = f"{stage}\n{', '.join(cases)}".encode()[: _BYTES - 1]
        self._map[: len(text) + 1] = text + b"\0"


def whereabouts(path: Path) -> tuple[str, str]:
    """Stage and cases that were noted last; empty where nothing was."""
    if not path.is_file():
        return "", ""
    text = path.read_bytes().partition(b"\0")[0].decode(errors="replace")
    stage, _, cases = text.partition("\n")
    return stage, cases

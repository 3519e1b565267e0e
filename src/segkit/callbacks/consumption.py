"""Advances n, the number of samples consumed: the one position from which a run goes on."""

from typing import Any, Protocol, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from segkit.types import Batch


class Consumes(Protocol):
    """A datamodule that is told which samples were used."""

    def consumed(self, batch: Batch) -> None:
        """A training step has used this batch."""


class Consumption(Callback):
    """Tells the datamodule which samples a step has used; prefetched ones never count.

    An ordinary callback, so that Lightning calls it before the checkpoint callbacks: a checkpoint written after
    a step counts its samples.
    """

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ANN401, ARG002
        batch: Batch,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """The batch has been used: its samples are behind us."""
        cast("Consumes", trainer.datamodule).consumed(batch)  # type: ignore[attr-defined]

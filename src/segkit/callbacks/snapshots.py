"""Do something every so many epochs: draw overlays, refresh curves, bring the copy up to date."""

from collections.abc import Callable
from typing import Literal, TypeAlias

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from segkit.callbacks.position import Position, position

Snapshot: TypeAlias = Callable[[Trainer, LightningModule, Position], object]


class Snapshots(Checkpoint):
    """Calls `function(trainer, module, position)` on rank 0.

    It counts as a checkpoint callback only for its turn: given to the trainer after `Checkpointing`, it finds the
    epoch's checkpoint written.

    Args:
        function: What to do. What it raises ends the training.
        every_n_epochs: How often; 0 for never.
        at: `validation`: after a validation; `epoch`: after an epoch and its checkpoint.
    """

    def __init__(
        self, function: Snapshot, *, every_n_epochs: int = 1, at: Literal["validation", "epoch"] = "epoch"
    ) -> None:
        self.function, self.every_n_epochs, self.at = function, every_n_epochs, at

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After a validation of the training."""
        if self.at == "validation" and not trainer.sanity_checking and trainer.state.fn == "fit":
            self._call(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After an epoch."""
        if self.at == "epoch":
            self._call(trainer, pl_module)

    def _call(self, trainer: Trainer, pl_module: LightningModule) -> None:
        where = position(trainer)
        if trainer.is_global_zero and self.every_n_epochs and where.epoch % self.every_n_epochs == 0:
            self.function(trainer, pl_module, where)

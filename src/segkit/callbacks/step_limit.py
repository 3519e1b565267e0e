"""Ends the training after so many optimizer steps.

Use this instead of `Trainer(max_steps=...)`: with that setting Lightning 2.6 takes a checkpoint of an epoch's end
for one within the epoch, and a resumed run ends at once, without an error and without having trained.
"""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class StepLimit(Callback):
    """Stops after `max_steps` optimizer steps; the last epoch may be shorter and is validated and saved as any other.

    Args:
        max_steps: Optimizer steps of all lives of the run together.
    """

    def __init__(self, max_steps: int) -> None:
        self.max_steps = max_steps
        self._restored = 0

    def on_load_checkpoint(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        checkpoint: dict[str, Any],
    ) -> None:
        """Remember the steps that are done: the trainer counts them only later."""
        self._restored = int(checkpoint["global_step"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """A run that had reached its limit takes no further step."""
        if self._restored >= self.max_steps:
            trainer.should_stop = True

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: object,  # noqa: ARG002
        batch: object,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Stop where the limit is reached."""
        if trainer.global_step >= self.max_steps:
            trainer.should_stop = True

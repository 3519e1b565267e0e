"""Running statistics (of batch normalisation) are the mean over the ranks, the same on each at every step.

The wrapper that averages the gradients can copy the first rank's buffers to the others, but does so at every forward
pass, in validation too, where each rank has another number of images: it would wait for ever. So that is switched off,
and this is done instead, once a training step.
"""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import distributed as dist

from segkit.ops.ranks import world_size


class SharedBuffers(Callback):
    """Averages the floating-point buffers of the network over the ranks after each step; nothing where none are."""

    @torch.no_grad()
    def on_train_batch_end(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,
        outputs: object,  # noqa: ARG002
        batch: object,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Take the mean."""
        if world_size() == 1:
            return
        for buffer in pl_module.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= world_size()

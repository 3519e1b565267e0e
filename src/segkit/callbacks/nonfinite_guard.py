"""Keeps NaN and infinity out of the weights: a step whose loss or gradient is not finite is left out, and named.

A step is left out on all ranks or on none. Its gradients are set to None, since zeros would still move the weights
by momentum and decay; running statistics (batch normalisation) go back to where they were before it. Its samples are
used up (n advances) and it counts as a step, but the schedule and the average of the weights stand still: the module
reads `skipped_step`.

The flag is computed where the gradients are and read once a backward pass, before the optimizer moves anything: the
decision is exact for every optimizer, with or without accumulation. In float16 an infinite gradient is the loss
scaler's business, until its scale is down to 1 and can no longer be the cause.
"""

import logging
import math
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from segkit.callbacks.checkpointing import TRAINING_WEIGHTS
from segkit.callbacks.divergence import Limits, nonfinite_names, too_many_left_out, weights_lost
from segkit.callbacks.position import position
from segkit.callbacks.recording import MetricSink
from segkit.callbacks.skipped_step import Offence, culprit, offence, save_batch
from segkit.ops.ranks import any_rank, gather_objects, rank
from segkit.types import Batch

METRIC = "train/skipped_steps"
"""Steps of the run so far that were left out; a row in each logging interval that adds to them."""
SAVED = 3
"""Batches of a run that are kept to repeat the step with."""
_NAMED = 5
_REMEMBERED = 100
_logger = logging.getLogger(__name__)


class Skips(Protocol):
    """A module that is told whether the optimizer's latest step was left out."""

    skipped_step: bool


class NonFiniteGuard(Callback):
    """Leaves out steps that are not finite; ends a run that consists of them. Give it after `WeightAveraging`.

    Args:
        folder: Where the first offending batches are kept.
        journal: Where the number of left-out steps goes.
        limits: What ends the run.
        every_n_steps: Logging interval, optimizer steps.
    """

    def __init__(
        self, folder: Path, journal: MetricSink, *, limits: Limits | None = None, every_n_steps: int = 10
    ) -> None:
        self.folder, self.journal, self.every_n_steps = Path(folder), journal, every_n_steps
        self.limits = limits or Limits()
        self.skipped = self.in_a_row = 0
        self._saved = 0
        self._unsaid: list[str] = []
        self._unsaid_steps = 0
        self._row_cases: list[str] = []
        self._step = 0
        self._begin_step()

    def _begin_step(self) -> None:
        self._batch: Batch | None = None
        self._found: tuple[Offence, Batch] | None = None
        self._cases: list[str] = []
        self._leave_out = False
        self._buffers: list[tuple[Tensor, Tensor]] | None = None
        self._loss = torch.zeros(())

    # -- the decision --------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count optimizer steps from here."""
        self._step = trainer.global_step
        cast("Skips", pl_module).skipped_step = False
        self._begin_step()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Hold the batch, and the running statistics before the step's first one."""
        del trainer, batch_idx
        if self._buffers is None:
            self._buffers = [(buffer, buffer.detach().clone()) for buffer in pl_module.buffers()]
        self._batch = batch
        self._cases += batch.case_id

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:  # noqa: ARG002
        """Hold the loss."""
        self._loss = loss.detach()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where a step has several batches, judge each: the one that spoils the gradient is the one to name."""
        if trainer.accumulate_grad_batches > 1:
            self._judge(trainer, pl_module)

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Leave the step out on all ranks, or on none."""
        finite = self._judge(trainer, pl_module)
        self._leave_out = any_rank(self._found is not None)
        # Where only the gradient is not finite it is the scaler that leaves the step out: the schedule waits as well.
        cast("Skips", pl_module).skipped_step = self._leave_out or not finite
        if not self._leave_out:
            return
        # A fused optimizer under a scaler looks for infinity by itself, and wants gradients to look at.
        fused = _scaler(trainer) is not None and getattr(optimizer, "_step_supports_amp_scaling", False)
        for parameter in (each for group in optimizer.param_groups for each in group["params"]):
            if fused and parameter.grad is not None:
                parameter.grad.fill_(math.nan)
            else:
                parameter.grad = None
        for buffer, before in self._buffers or ():
            buffer.copy_(before)

    @torch.no_grad()
    def _judge(self, trainer: Trainer, module: LightningModule) -> bool:
        """Judge the batch by its loss and by what the gradient has become; returns whether the gradient is finite."""
        norm = get_total_norm([each.grad for each in module.parameters() if each.grad is not None])
        loss = self._loss.isfinite().all()
        loss_finite, finite = torch.stack([loss, norm.isfinite().to(loss.device)]).tolist()  # the one wait
        scale = _scale(trainer)
        if self._found is None and self._batch is not None and not (loss_finite and (finite or scale > 1)):
            # The trainer has divided the loss by the batches of a step, and the scaler has multiplied it.
            value = float(self._loss) * trainer.accumulate_grad_batches / scale
            self._found = (offence(self._batch, value), self._batch)
        return bool(finite)

    # -- counting ------------------------------------------------------------------------------------------

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Count the step, tell of it when it is time, end the run where there are too many.

        Raises:
            Diverged: More steps were left out than `limits` allow.
        """
        del outputs, batch, batch_idx
        self._batch = None  # its memory is needed for the next one
        if trainer.global_step == self._step:
            return  # gradients are still being accumulated
        self._step, why = trainer.global_step, None
        if self._leave_out:
            self._count()
            why = self.limits.exceeded(in_a_row=self.in_a_row, skipped=self.skipped, steps=self._step)
        else:
            self.in_a_row, self._row_cases = 0, []
        self._begin_step()
        if why is not None or self._step % self.every_n_steps == 0:
            self._tell(trainer)
        if why is not None:
            raise too_many_left_out(
                why,
                step=self._step,
                case_ids=self._row_cases,
                kept=str(self.folder) if self._saved else None,
                broken=nonfinite_names(pl_module.state_dict()),
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Tell what is untold before the epoch's checkpoint."""
        self._tell(trainer)

    def _count(self) -> None:
        """Gather who has spoilt the step, keep its batch, make the line about it."""
        self.skipped += 1
        self.in_a_row += 1
        found, batch = self._found or (None, None)
        ranks = gather_objects((found, tuple(self._cases)))
        guilty = culprit(ranks)
        self._row_cases = [*self._row_cases, *guilty.case_ids][-_REMEMBERED:]
        kept = ""
        if self._saved < SAVED:
            path = self.folder / f"step-{self._step:08d}.pt"
            lost = False
            if rank() == guilty.rank and batch is not None:
                lost = not save_batch(path, batch, step=self._step, loss=guilty.offence.loss)
            if not any_rank(lost):
                self._saved += 1
                kept = f"; kept in {self.folder.name}/{path.name}"
        where = f" on rank {guilty.rank}" if len(ranks) > 1 else ""
        if len(self._unsaid) < _NAMED:
            self._unsaid.append(f"step {self._step}{where}: {guilty.line}{kept}")
        self._unsaid_steps += 1

    def _tell(self, trainer: Trainer) -> None:
        """One row and one warning for all steps that were left out since the last ones."""
        if not self._unsaid_steps:
            return
        where = position(trainer)
        if trainer.is_global_zero:
            self.journal.metrics({METRIC: float(self.skipped)}, n=where.n, step=where.step, epoch=where.epoch)
            more = self._unsaid_steps - len(self._unsaid)
            lines = [*self._unsaid, *([f"and {more} more"] if more else [])]
            _logger.warning(
                "Left out %d of the last optimizer steps (%d of %d in this run): loss or gradient not finite.\n  %s",
                self._unsaid_steps,
                self.skipped,
                where.step,
                "\n  ".join(lines),
            )
        self._unsaid, self._unsaid_steps = [], 0

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuse to store weights that are not finite: the earlier checkpoints are worth more.

        Raises:
            Diverged: A weight, or a running statistic, is NaN or infinite.
        """
        del pl_module
        for weights in (checkpoint["state_dict"], checkpoint.get(TRAINING_WEIGHTS, {})):
            broken = nonfinite_names(weights)
            if broken:
                raise weights_lost(broken, of=len(weights), step=trainer.global_step)

    # -- state ---------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The counts, and what is not yet told; no setting."""
        return {
            "skipped": self.skipped,
            "in_a_row": self.in_a_row,
            "saved": self._saved,
            "unsaid": list(self._unsaid),
            "unsaid_steps": self._unsaid_steps,
            "row_cases": list(self._row_cases),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them over."""
        self.skipped, self.in_a_row = int(state_dict["skipped"]), int(state_dict["in_a_row"])
        self._saved, self._unsaid_steps = int(state_dict["saved"]), int(state_dict["unsaid_steps"])
        self._unsaid, self._row_cases = list(state_dict["unsaid"]), list(state_dict["row_cases"])


def _scaler(trainer: Trainer) -> Any:  # noqa: ANN401  GradScaler or None
    return getattr(trainer.precision_plugin, "scaler", None)


def _scale(trainer: Trainer) -> float:
    """What the loss was multiplied with, 1 without a scaler."""
    scaler = _scaler(trainer)
    return 1.0 if scaler is None else float(scaler.get_scale())

"""Keeps NaN and infinity out of the weights: a step whose loss or gradient is not finite is left out, and named.

A step is left out on all ranks or on none. Running statistics (batch normalisation) go back to where they were before
it. Its samples are used up (n advances) and it counts as a step, but the schedule and the average of the weights stand
still. The decision is exact, with or without accumulation, and falls before the optimizer moves anything. By one of
two ways, with the same result to the bit:

    at once  The host reads one flag a backward pass. Gradients are set to None, since zeros would still move the
             weights by momentum and decay; the module reads `skipped_step`. For every optimizer.
    late     The host would have to wait for a GPU at every step to read it. So the flag stays there: a fused optimizer
             takes it as `found_inf` and leaves the step out by itself, the module has it as `skipped_on_device`. The
             host learns of it one step later, before the next step uses a rate, and puts right what only it knows.
             Where a checkpoint, a validation, the end of an epoch or a logging interval counts on it, it waits.

In float16 an infinite gradient is the loss scaler's business, until its scale is down to 1 and can no longer be the
cause; the scaler hands out `found_inf` itself, so there the decision falls at once.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from segkit.callbacks.checkpointing import TRAINING_WEIGHTS
from segkit.callbacks.divergence import Limits, nonfinite_names, weights_lost
from segkit.callbacks.late_verdict import TakesBack, Trial, Verdict
from segkit.callbacks.position import Position, position
from segkit.callbacks.recording import MetricSink
from segkit.callbacks.skip_ledger import SkipLedger
from segkit.callbacks.skipped_step import Offence, offence
from segkit.module.fused import honours_flag, prepare_momentum
from segkit.ops.ranks import any_rank
from segkit.types import Batch


class Guarded(Protocol):
    """A module that is told about the optimizer's latest step.

    skipped_step: It was left out, as far as the host knows.
    skipped_on_device: Whether it was, 0 or 1, where only the device knows; None where the host does.
    gradient_norm: Of the gradient that the optimizer is about to use; None where it is not known.
    """

    skipped_step: bool
    skipped_on_device: Tensor | None
    gradient_norm: Tensor | None


class NonFiniteGuard(Callback):
    """Leaves out steps that are not finite; ends a run that consists of them. Give it after `WeightAveraging`.

    Args:
        folder: Where the first offending batches are kept.
        journal: Where the number of left-out steps goes.
        limits: What ends the run.
        every_n_steps: Logging interval, optimizer steps.
        late: Whether the host learns of a left-out step late, where the optimizer allows it; None: on a GPU.
    """

    def __init__(
        self,
        folder: Path,
        journal: MetricSink,
        *,
        limits: Limits | None = None,
        every_n_steps: int = 10,
        late: bool | None = None,
    ) -> None:
        self.ledger = SkipLedger(Path(folder), journal, limits or Limits())
        self.every_n_steps, self.late = every_n_steps, late
        self._step = 0
        self._verdict: Verdict | None = None
        self._begin_step()

    def _begin_step(self) -> None:
        self._batch: Batch | None = None
        self._found: tuple[Offence, Batch] | None = None
        self._cases: list[str] = []
        self._leave_out = False
        self._finite = True
        self._buffers: list[tuple[Tensor, Tensor]] | None = None
        self._loss = torch.zeros(())
        self._trial = Trial()

    # -- the decision --------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count optimizer steps from here."""
        self._step = trainer.global_step
        module = cast("Guarded", pl_module)
        module.skipped_step, module.skipped_on_device, module.gradient_norm = False, None, None
        self._verdict = None
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

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Where a step has several batches, judge each: the one that spoils the gradient is the one to name."""
        if trainer.fit_loop._should_accumulate():  # the last one is judged before the optimizer's step
            self._judge(trainer, late=self._is_late(trainer))

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Leave the step out on all ranks, or on none."""
        late, module = self._is_late(trainer), cast("Guarded", pl_module)
        self.settle(trainer, pl_module)
        norm = self._judge(trainer, late=late)
        # Clipping needs the same norm. Under a scaler it is Lightning's business which optimizers can be clipped.
        module.gradient_norm = norm if _scaler(trainer) is None else None
        if late:
            prepare_momentum(optimizer)
            self._verdict = self._trial.close(trainer, cases=self._cases)
            optimizer.found_inf = module.skipped_on_device = self._verdict.flag  # type: ignore[attr-defined]
            for buffer, before in self._buffers or ():
                buffer.copy_(torch.where(self._verdict.flag.bool(), before, buffer))
            return
        self._leave_out = any_rank(self._found is not None)
        # Where only the gradient is not finite it is the scaler that leaves the step out: the schedule waits as well.
        module.skipped_step = self._leave_out or not self._finite
        if not self._leave_out:
            return
        # A fused optimizer under a scaler looks for infinity by itself, and wants gradients to look at.
        fused = _scaler(trainer) is not None and getattr(optimizer, "_step_supports_amp_scaling", False)
        for parameter in (each for group in optimizer.param_groups for each in group["params"]):
            if fused and parameter.grad is not None:
                parameter.grad.fill_(math.nan)
            else:
                parameter.grad = None
        self._put_buffers_back()

    def _put_buffers_back(self) -> None:
        for buffer, before in self._buffers or ():
            buffer.copy_(before)

    def _is_late(self, trainer: Trainer) -> bool:
        wanted = trainer.strategy.root_device.type == "cuda" if self.late is None else self.late
        return wanted and _scaler(trainer) is None and honours_flag(trainer.optimizers[0])

    @torch.no_grad()
    def _judge(self, trainer: Trainer, *, late: bool) -> Tensor:
        """Judge the batch by its loss and by what the gradient has become, whose norm is returned."""
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        norm = get_total_norm([each.grad for group in groups for each in group["params"] if each.grad is not None])
        if self._batch is None:
            return norm
        if late:
            self._trial.add(self._batch, loss=self._loss, norm=norm)
        else:
            loss = self._loss.isfinite().all()
            loss_finite, self._finite = torch.stack([loss, norm.isfinite().to(loss.device)]).tolist()  # the one wait
            scale = _scale(trainer)
            if self._found is None and not (loss_finite and (self._finite or scale > 1)):
                self._found = _blamed(trainer, self._batch, float(self._loss) / scale)
        return norm

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
        self._step = trainer.global_step
        interval = self._step % self.every_n_steps == 0
        if self._verdict is not None:
            self._verdict.where = position(trainer)
            for optimizer in trainer.optimizers:
                vars(optimizer).pop("found_inf", None)
            if interval or trainer.is_last_batch or trainer.should_stop:
                self.settle(trainer, pl_module)
        else:
            found, cases = self._found, self._cases
            self._enter(trainer, pl_module, position(trainer), left_out=self._leave_out, found=found, cases=cases)
        self._begin_step()
        if interval:
            self.ledger.tell(position(trainer), aloud=trainer.is_global_zero)

    def settle(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Learn what the device has decided on the latest step, and put right what only the host knows.

        Raises:
            Diverged: More steps were left out than `limits` allow.
        """
        verdict, self._verdict = self._verdict, None
        if verdict is None:
            return
        left_out, bad = verdict.read()
        if left_out:
            verdict.schedule.put_back()
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, TakesBack):
                    callback.take_back()
        found = None if bad is None else _blamed(trainer, *bad)
        where = verdict.where or position(trainer)
        self._enter(trainer, pl_module, where, left_out=left_out, found=found, cases=verdict.cases)

    def _enter(
        self,
        trainer: Trainer,
        module: LightningModule,
        where: Position,
        *,
        left_out: bool,
        found: tuple[Offence, Batch] | None,
        cases: Sequence[str],
    ) -> None:
        """Enter a step into the book; all ranks do."""
        if not left_out:
            self.ledger.taken()
            return
        why = self.ledger.left_out(where.step, found, cases)
        if why is not None:
            self.ledger.tell(where, aloud=trainer.is_global_zero)
            self._put_buffers_back()  # a late host has let the next batch through them
            raise self.ledger.failure(why, step=where.step, module=module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validation, and what follows it, see where the schedule really stands."""
        self.settle(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell what is untold before the epoch's checkpoint."""
        self.settle(trainer, pl_module)
        self.ledger.tell(position(trainer), aloud=trainer.is_global_zero)

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
        """The book; see `late_verdict.settle_all`."""
        return self.ledger.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it over."""
        self.ledger.load_state_dict(state_dict)


def _blamed(trainer: Trainer, batch: Batch, loss: float) -> tuple[Offence, Batch]:
    """A batch and what is to be said of it; the trainer has divided its loss by the batches of a step."""
    return offence(batch, loss * trainer.accumulate_grad_batches), batch


def _scaler(trainer: Trainer) -> Any:  # noqa: ANN401  GradScaler or None
    return getattr(trainer.precision_plugin, "scaler", None)


def _scale(trainer: Trainer) -> float:
    """What the loss was multiplied with, 1 without a scaler."""
    scaler = _scaler(trainer)
    return 1.0 if scaler is None else float(scaler.get_scale())

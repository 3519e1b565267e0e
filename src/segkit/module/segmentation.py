"""SegmentationModule: the training and validation steps, the optimizer and its schedule; nothing else.

What it logs, and on which axis:

    train/loss          each step; its mean over the epoch becomes train/loss_epoch
    train/dice[/CLASS]  each epoch; the definition of validation (per sample, then over samples, then classes),
                        on patches instead of whole images
    input/mean|std|min|max  each `log_every_n_steps` steps: of the augmented batch inside `valid`, to be held
                        against the prepared data's
    val/score, val/loss, val/dice[/CLASS], val/iou, val/precision, val/recall  each validation, whole images
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau
from torchmetrics import Metric

from segkit.evaluation import EvaluationSettings, Summary
from segkit.inference.predictor import Predictor
from segkit.losses.deep_supervision import DeepSupervision
from segkit.losses.loss import set_epoch
from segkit.metrics.training_dice import TrainingDice
from segkit.module.validation import ScoredCase, defined, score_case, validation_of
from segkit.ops.intensity import statistics
from segkit.ops.keyed_random import torch_seed
from segkit.ops.ranks import gather_objects, rank, total_over_ranks
from segkit.planning.plan import Plan
from segkit.types import Batch, PreparedCase

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[..., LRScheduler | ReduceLROnPlateau]

DROPOUT_STREAM = 5


class _CutShort(Exception):
    """The run shall stop: the image at work is given up."""


def _never() -> bool:
    return False


class SegmentationModule(LightningModule):
    """Wraps a network and a loss for Lightning.

    Args:
        network: Contract of `segkit.networks`: logits, a list of them in training under deep supervision.
        loss: Contract of `segkit.losses`; wrapped in deep supervision here.
        plan: Patch size, classes, tile batch.
        optimizer: Makes the optimizer from the parameters.
        scheduler: Makes the schedule from the optimizer and `total_steps`.
        total_steps: Optimizer steps of the whole run, the horizon of the schedule.
        settings: How a whole image becomes numbers; stored in the run, so that `evaluate` uses the same.
        precision: What the predictor computes in; the trainer's own precision.
        seed: Keys the dropout masks of each step.
        log_every_n_steps: Steps between two points of the step-wise curves.
        compiled: What the training step calls in the network's place; it has the same parameters.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        *,
        plan: Plan,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory,
        total_steps: int,
        settings: EvaluationSettings,
        precision: str,
        seed: int = 0,
        log_every_n_steps: int = 10,
        compiled: Callable[[Tensor], Tensor | list[Tensor]] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self._compiled = compiled  # a function, no module: the weights have one name in a checkpoint
        self.loss = DeepSupervision(loss)
        self.plan = plan
        self.settings = settings
        self.total_steps = total_steps
        self.seed = seed
        self.last_per_case: dict[str, float] = {}
        self.last_summary: Summary | None = None
        self._optimizer_factory = optimizer
        self._scheduler_factory = scheduler
        self._precision = precision
        self._log_every_n_steps = log_every_n_steps
        self._train_dice = TrainingDice(plan.num_classes)
        self.stopping: Callable[[], bool] = _never
        self.validation_cut_short = False
        self._val_loss = math.nan
        self._results: list[ScoredCase] = []
        self._plateau: ReduceLROnPlateau | None = None
        self._base_rates: list[float] = []
        self._schedule: LambdaLR | None = None
        self._cooldown: tuple[int, int] | None = None
        self.skipped_step = False
        self.skipped_on_device: Tensor | None = None
        self.gradient_norm: Tensor | None = None

    # -- training ------------------------------------------------------------------------------------------

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Key the dropout masks by (seed, first sample of the batch), the loss by the epoch: neither needs storing."""
        set_epoch(self.loss, self.current_epoch)
        torch.manual_seed(torch_seed(self.seed, batch.n[0], DROPOUT_STREAM))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Loss of one batch."""
        outputs = (self._compiled or self.network)(batch.image)
        loss: Tensor = self.loss(outputs, batch.target)
        self.log("train/loss", loss.detach(), on_step=True, on_epoch=False, batch_size=len(batch.n))
        with torch.no_grad():
            finest = outputs[0] if isinstance(outputs, list) else outputs
            self._train_dice.update(finest.detach(), batch.target.label)
            if (self.global_step + 1) % self._log_every_n_steps == 0:
                self._log_inputs(batch)
        return loss

    def _log_inputs(self, batch: Batch) -> None:
        """Statistics of what the network is shown: a transform that breaks normalisation shows here first."""
        inputs = statistics(batch.image, batch.valid)
        values = {
            "input/mean": inputs.mean.mean(),
            "input/std": inputs.std.mean(),
            "input/min": inputs.minimum.amin(),
            "input/max": inputs.maximum.amax(),
        }
        self.log_dict(values, on_step=True, on_epoch=False, batch_size=len(batch.n))

    def on_train_epoch_end(self) -> None:
        """Means of the epoch."""
        per_class = self._train_dice.compute()[1:]
        by_class = zip(self.plan.labels.foreground, per_class.tolist(), strict=True)
        dice = {f"train/dice/{name}": value for name, value in by_class}
        self._log_epoch({"train/dice": float(per_class.nanmean()), **dice})
        self._train_dice.reset()

    # -- validation ----------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Forget the cases of the validation before; the loss is that of the epoch which ends, also after a resume."""
        set_epoch(self.loss, self.current_epoch)
        self._results = []
        self.validation_cut_short = False

    def validation_step(self, case: PreparedCase | None, batch_idx: int) -> None:  # noqa: ARG002
        """Score one whole image as `evaluate` does; its blended logits also give `val/loss`.

        Where the run shall stop, the image is given up at the next pass of the network and no other one begun.
        """
        if case is None or self.validation_cut_short:
            return
        try:
            settings, spacing = self.settings, self.plan.spacing
            scored = score_case(self.predictor(), self.loss.loss, case, settings=settings, spacing=spacing)
        except _CutShort:
            self.validation_cut_short = True
            return
        self._results.append(scored)

    def _go_on(self) -> None:
        if self.stopping():
            raise _CutShort

    def on_validation_epoch_end(self) -> None:
        """Aggregate the cases of all ranks."""
        scored = itertools.chain.from_iterable(gather_objects(self._results))
        validation = validation_of(scored, self.plan.labels, self.settings)
        self.last_summary = validation.summary
        self.last_per_case = validation.summary.per_case_score
        self._val_loss = validation.loss
        self._log_epoch(validation.values())

    def on_validation_end(self) -> None:
        """Step the plateau schedule exactly once a validation; Lightning's own stepping skips some."""
        if self._plateau is not None and not self.trainer.sanity_checking:
            self._plateau.step(self._val_loss)

    def predictor(self) -> Predictor:
        """The network as it stands, over whole images."""
        return Predictor(
            self.network,
            patch_size=self.plan.patch_size,
            num_classes=self.plan.num_classes,
            step=self.settings.step,
            tile_batch=self.plan.tile_batch,
            device=self.device,
            precision=self._precision,
            mirror_axes=self.settings.mirror_axes,
            before_pass=self._go_on,
        )

    # -- optimization --------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:  # noqa: ANN401  (Lightning's union of seven forms)
        """Optimizer, and the schedule by step; the plateau is stepped in `on_validation_end`."""
        optimizer = self._optimizer_factory(self.network.parameters())
        self._base_rates = [float(group["lr"]) for group in optimizer.param_groups]
        scheduler = self._scheduler_factory(optimizer, total_steps=self.total_steps)
        if isinstance(scheduler, ReduceLROnPlateau):
            self._plateau = scheduler
            return optimizer
        if isinstance(scheduler, LambdaLR):
            self._schedule = scheduler
            scheduler.lr_lambdas = [self._with_cooldown(multiplier) for multiplier in scheduler.lr_lambdas]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _with_cooldown(self, multiplier: Callable[[int], float]) -> Callable[[int], float]:
        def cooled(step: int) -> float:
            if self._cooldown is None or step < self._cooldown[0]:
                return multiplier(step)
            start, steps = self._cooldown
            return multiplier(start) * max(0.0, 1.0 - (step - start) / steps)

        return cooled

    def anneal(self, steps: int) -> None:
        """Bring the rate from where it is linearly to zero over the next `steps` steps, whatever the schedule."""
        if self._cooldown is None:
            # The schedule's own count: it stands still where a step is left out.
            start = self.global_step if self._schedule is None else self._schedule.last_epoch
            self._cooldown = (start, max(1, steps))

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:  # noqa: ANN401  (Lightning's signature)
        """Advance the schedule, unless the optimizer's step was left out; `NonFiniteGuard` sets `skipped_step`."""
        if not self.skipped_step:
            super().lr_scheduler_step(scheduler, metric)

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Shorten the gradient, g min(1, c / |g|), by the norm that `NonFiniteGuard` has just computed."""
        norm, self.gradient_norm = self.gradient_norm, None
        if norm is None or not gradient_clip_val or gradient_clip_algorithm not in (None, "norm"):
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        moved = (each for group in optimizer.param_groups for each in group["params"])
        clip_grads_with_norm_(moved, gradient_clip_val, norm)

    def on_train_start(self) -> None:
        """What the configuration says of the rate holds, also after a checkpoint restored an older one.

        Without a change the rates come out bitwise as they were stored.
        """
        for config in self.trainer.lr_scheduler_configs:
            scheduler = config.scheduler
            if isinstance(scheduler, LambdaLR):
                scheduler.base_lrs = list(self._base_rates)
                rates: list[float | Tensor] = [
                    base * multiplier(scheduler.last_epoch)
                    for base, multiplier in zip(self._base_rates, scheduler.lr_lambdas, strict=True)
                ]
                for group, base, rate in zip(scheduler.optimizer.param_groups, self._base_rates, rates, strict=True):
                    group["initial_lr"], group["lr"] = base, rate
                scheduler._last_lr = rates

    # -- state ---------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What Lightning does not store: the running Dice of the epoch, the cool-down, the plateau."""
        checkpoint["segmentation_module"] = {
            "train_dice": _state(self._train_dice),  # of all ranks
            "cooldown": list(self._cooldown) if self._cooldown else None,
            "plateau": _plain(self._plateau.state_dict()) if self._plateau else None,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Counterpart of `on_save_checkpoint`."""
        state = checkpoint["segmentation_module"]
        self._restored = state
        self._cooldown = tuple(state["cooldown"]) if state["cooldown"] else None

    def on_fit_start(self) -> None:
        """Put back the running Dice; the plateau only exists once the optimizer does."""
        state, self._restored = self._restored, None
        if state is None:
            return
        _restore(self._train_dice, state["train_dice"])
        if self._plateau is not None and state["plateau"] is not None:
            self._plateau.load_state_dict(state["plateau"])

    _restored: dict[str, Any] | None = None

    # -- logging -------------------------------------------------------------------------------------------

    def _log_epoch(self, values: dict[str, float]) -> None:
        """One point an epoch for each value that is defined; an undefined one is left out, not logged as 0."""
        self.log_dict(defined(values), on_step=False, on_epoch=True, batch_size=1)


def _state(metric: Metric) -> dict[str, Any]:
    """States of a metric whose states are sums, added up over the ranks."""
    names = list(metric.metric_state)
    totals = total_over_ranks([torch.as_tensor(metric.metric_state[name]) for name in names])
    return {"updates": metric.update_count, **dict(zip(names, totals, strict=True))}


def _restore(metric: Metric, state: Mapping[str, Any]) -> None:
    """The first rank takes what all had counted; the others begin at zero."""
    metric._update_count = state["updates"]
    if rank() == 0:
        for name in metric.metric_state:
            setattr(metric, name, state[name].to(metric.device))


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """Only what `weights_only` loading accepts; the rest follows from the configuration."""
    return {key: value for key, value in state.items() if isinstance(value, int | float | str | bool | None)}

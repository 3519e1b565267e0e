"""Stop when the score no longer rises, and say why.

Settings come from the configuration of the present life; a checkpoint holds what was observed (best score and its
epoch), never a verdict. A larger patience therefore lets a stopped run go on, and a run that has stopped stays
stopped when it is started again.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, cast, runtime_checkable

from lightning.pytorch import Callback, LightningModule, Trainer

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """When to give up.

    Args:
        patience: Epochs without improvement, counted from the best epoch or the end of the warm-up, whichever is
            later.
        min_delta: A score is an improvement if it exceeds the best by more than this.
        warmup_epochs: Epochs that are not counted: learning may start late.
    """

    patience: int
    min_delta: float = 0.0
    warmup_epochs: int = 0


@dataclass(frozen=True)
class Observed:
    """What the validations have shown. Epochs count from 1; 0 is before the first.

    Args:
        best: Highest score, -inf before the first finite one.
        best_epoch: The epoch that reached it.
        epoch: The latest epoch that was validated.
    """

    best: float = -math.inf
    best_epoch: int = 0
    epoch: int = 0

    def after(self, score: float, *, epoch: int, min_delta: float = 0.0) -> "Observed":
        """The same after one more validation; NaN never wins, nor does a tie."""
        if math.isfinite(score) and score > self.best + min_delta:
            return Observed(best=score, best_epoch=epoch, epoch=epoch)
        return replace(self, epoch=epoch)

    def waited(self, rule: Patience) -> int:
        """Epochs without improvement that count."""
        return max(0, self.epoch - max(self.best_epoch, rule.warmup_epochs))

    def exhausted(self, rule: Patience) -> bool:
        """Whether patience has run out."""
        return self.waited(rule) >= rule.patience


@runtime_checkable
class Anneals(Protocol):
    """A module whose learning rate can be brought to zero within a number of steps."""

    def anneal(self, steps: int) -> None:
        """Bring the rate to zero over the next `steps` optimizer steps."""


class EarlyStopping(Callback):
    """Stops training when patience has run out; under an annealing schedule after a cool-down.

    Args:
        rule: When to give up.
        monitor: Name of the logged score; higher is better.
        cooldown_epochs: Epochs over which the module brings its rate to zero before the stop; 0 where the schedule
            does not anneal. A module without `anneal` is stopped at once.
        scores: (epoch, score) of all validations, where they come in later than their epoch: each is judged at the
            end of the first epoch that knows it, in the order of epochs. Without it a validation is judged at its end.
    """

    def __init__(
        self,
        rule: Patience,
        *,
        monitor: str = "val/score",
        cooldown_epochs: int = 0,
        scores: Callable[[], Sequence[tuple[int, float]]] | None = None,
    ) -> None:
        self.rule, self.monitor, self.cooldown_epochs, self.scores = rule, monitor, cooldown_epochs, scores
        self.observed = Observed()
        self.judged = 0
        self.cooling_since: int | None = None
        self.reason = ""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that had stopped trains no further epoch when it is started again, unless patience has grown."""
        self._take_late_scores()
        if self.cooling_since is None:
            if self.observed.epoch and self.observed.exhausted(self.rule) and not self._cools(pl_module):
                self._stop(trainer)
        elif self.judged >= self.cooling_since + self.cooldown_epochs:
            self._stop(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the epoch that was validated."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        epoch = trainer.current_epoch + 1
        score = float(trainer.callback_metrics.get(self.monitor, math.nan))
        self.observed = self.observed.after(score, epoch=epoch, min_delta=self.rule.min_delta)
        self._judge(trainer, pl_module, epoch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge what has come in since the epoch before; the checkpoint that follows knows it."""
        if self.scores is not None:
            self._take_late_scores()
            self._judge(trainer, pl_module, trainer.current_epoch + 1)

    def _take_late_scores(self) -> None:
        for epoch, score in self.scores() if self.scores is not None else ():
            if epoch > self.observed.epoch:
                self.observed = self.observed.after(score, epoch=epoch, min_delta=self.rule.min_delta)

    def _judge(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        self.judged = epoch
        if self.cooling_since is not None:
            if epoch >= self.cooling_since + self.cooldown_epochs:
                self._stop(trainer)
        elif self.observed.exhausted(self.rule):
            if self._cools(pl_module):
                self._cool(trainer, pl_module, epoch)
            else:
                self._stop(trainer)

    def state_dict(self) -> dict[str, Any]:
        """What was observed, and since when the rate goes down; no setting."""
        return {"observed": asdict(self.observed), "cooling_since": self.cooling_since, "judged": self.judged}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what was observed over."""
        self.observed = Observed(**state_dict["observed"])
        self.cooling_since = state_dict["cooling_since"]
        self.judged = int(state_dict.get("judged", self.observed.epoch))

    def _cools(self, module: LightningModule) -> bool:
        return self.cooldown_epochs > 0 and isinstance(module, Anneals)

    def _cool(self, trainer: Trainer, module: LightningModule, epoch: int) -> None:
        epochs = self.cooldown_epochs
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            epochs = min(epochs, trainer.max_epochs - epoch)
        self.cooling_since = epoch
        if epochs <= 0:
            return
        steps = epochs * math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        _logger.info("%s The learning rate goes to zero over %d epochs, then training stops.", self._why(), epochs)
        cast("Anneals", module).anneal(steps)

    def _stop(self, trainer: Trainer) -> None:
        self.reason = self._why()
        if self.cooling_since is not None:
            self.reason += f" The learning rate was brought to zero from epoch {self.cooling_since} on."
        _logger.info("Training stops after epoch %d: %s", self.observed.epoch, self.reason)
        trainer.should_stop = True

    def _why(self) -> str:
        seen = self.observed
        waited = (self.cooling_since or seen.epoch) - max(seen.best_epoch, self.rule.warmup_epochs)
        best = f"the best, {seen.best:.4f}, is of epoch {seen.best_epoch}" if seen.best_epoch else "there is none yet"
        return (
            f"{self.monitor} has not risen by more than {self.rule.min_delta:g} for {max(waited, 0)} epochs "
            f"(patience {self.rule.patience}, warm-up {self.rule.warmup_epochs}); {best}."
        )

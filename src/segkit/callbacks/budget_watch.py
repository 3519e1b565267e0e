"""Keeps a training within its budget of seconds where the machine has become slower than it was when it was timed.

The number of steps was fixed when the run began, from timed steps. Where the steps that are left would no longer fit,
the rate is brought to zero over those that do, and the training ends there: a model whose rate was annealed early is
worth more than one that is late, or was cut off in full swing. A machine that has become faster ends early.
"""

import logging
import time
from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

from lightning.pytorch import Callback, LightningModule, Trainer

TOLERANCE = 0.03
"""Share of the budget by which the end may be late before anything is done about it."""
COOL_DOWN = 0.15
"""Share of the budget over which the rate is brought to zero."""
_RECENT = 0.95
_logger = logging.getLogger(__name__)


@runtime_checkable
class Annealable(Protocol):
    """A module whose rate can be brought to zero."""

    def anneal(self, steps: int) -> None:
        """Over the next `steps` steps."""


def steps_that_fit(seconds: float, *, steps: int, step_s: float, budget_s: float) -> int | None:
    """How many of the planned steps are still to be taken; None where the plan stands, or may yet stand.

    Args:
        seconds: Time that is left for steps.
        steps: Steps that are left by plan.
        step_s: What one takes at present.
        budget_s: The whole budget.
    """
    late = steps * step_s - seconds > TOLERANCE * budget_s
    if not late or seconds > COOL_DOWN * budget_s:
        return None
    return max(1, int(seconds / step_s))


class BudgetWatch(Callback):
    """Ends a training in time.

    Args:
        budget_s: Seconds of the run, all lives together.
        ending_s: Of these, what the end of the run takes.
        max_steps: Steps by plan.
        spent_s: Seconds that this life has taken so far.
        clock: Seconds since any moment.
    """

    def __init__(
        self,
        budget_s: float,
        *,
        ending_s: float,
        max_steps: int,
        spent_s: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget_s, self.ending_s, self.max_steps = budget_s, ending_s, max_steps
        self._spent_s, self._clock = spent_s, clock
        self._before = 0.0
        self._step_s: float | None = None
        self._since: float | None = None
        self._step = 0
        self.limit: int | None = None
        self.reason = ""

    @property
    def spent_s(self) -> float:
        """Seconds of all lives that led to these weights."""
        return self._before + self._spent_s()

    def on_load_checkpoint(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        checkpoint: dict[str, Any],
    ) -> None:
        """Remember the steps that are done: the trainer counts them only later."""
        self._step = int(checkpoint["global_step"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """A run that had reached its shortened end takes no further step."""
        self._since = None
        if self.limit is not None and self._step >= self.limit:
            trainer.should_stop = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Its time is no step's."""
        self._since = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Look at the clock."""
        del outputs, batch, batch_idx
        if trainer.global_step == self._step:
            return
        self._step, now = trainer.global_step, self._clock()
        if self._since is not None:
            taken = now - self._since
            self._step_s = taken if self._step_s is None else _RECENT * self._step_s + (1 - _RECENT) * taken
        self._since = now
        if self.limit is not None:
            trainer.should_stop |= self._step >= self.limit
        elif self._step_s is not None:
            self._decide(cast("Annealable", pl_module))

    def _decide(self, module: Annealable) -> None:
        seconds = self.budget_s - self.ending_s - self.spent_s
        left = self.max_steps - self._step
        few = steps_that_fit(seconds, steps=left, step_s=self._step_s or 0.0, budget_s=self.budget_s)
        if few is None or few >= left:
            return
        self.limit = self._step + few
        module.anneal(few)
        self.reason = f"the budget of {self.budget_s:.0f} s was over: steps had become slower than they were timed"
        _logger.warning(
            "Steps take %.2f s now and %d of them no longer fit into the budget of %.0f s: the rate is brought to zero "
            "over the next %d, training ends at step %d of %d. trainer.max_steps alone will not make this run again.",
            *(self._step_s, left, self.budget_s, few, self.limit, self.max_steps),
        )

    def state_dict(self) -> dict[str, Any]:
        """Seconds spent, and the shortened end."""
        return {"spent_s": self.spent_s, "limit": self.limit, "reason": self.reason}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._before, self.limit = float(state_dict["spent_s"]), state_dict["limit"]
        self.reason = str(state_dict["reason"])

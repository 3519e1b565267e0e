"""The book of optimizer steps that were left out: how many, what spoilt them, and when there are too many."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from segkit.callbacks.divergence import Limits, nonfinite_names, too_many_left_out
from segkit.callbacks.position import Position
from segkit.callbacks.recording import MetricSink
from segkit.callbacks.skipped_step import Offence, culprit, save_batch
from segkit.errors import Diverged
from segkit.ops.ranks import any_rank, gather_objects, rank
from segkit.types import Batch

METRIC = "train/skipped_steps"
"""Steps of the run so far that were left out; a row in each logging interval that adds to them."""
SAVED = 3
"""Batches of a run that are kept to repeat the step with."""
_NAMED = 5
_REMEMBERED = 100
_logger = logging.getLogger(__name__)


class SkipLedger:
    """Counts, keeps batches, tells.

    Args:
        folder: Where the first offending batches are kept.
        journal: Where the number of left-out steps goes.
        limits: What ends the run.
    """

    def __init__(self, folder: Path, journal: MetricSink, limits: Limits) -> None:
        self.folder, self.journal, self.limits = folder, journal, limits
        self.skipped = self.in_a_row = 0
        self._saved = 0
        self._unsaid: list[str] = []
        self._unsaid_steps = 0
        self._row_cases: list[str] = []

    def taken(self) -> None:
        """A step was taken: no row of left-out ones goes on."""
        self.in_a_row, self._row_cases = 0, []

    def left_out(self, step: int, found: tuple[Offence, Batch] | None, cases: Sequence[str]) -> str | None:
        """Gather who has spoilt the step, keep its batch, make the line about it; all ranks call it.

        Args:
            step: Its number.
            found: This rank's first batch that was not finite.
            cases: All cases of this rank's step.

        Returns:
            Why the run ends; None where it goes on.
        """
        self.skipped += 1
        self.in_a_row += 1
        offence, batch = found or (None, None)
        ranks = gather_objects((offence, tuple(cases)))
        guilty = culprit(ranks)
        self._row_cases = [*self._row_cases, *guilty.case_ids][-_REMEMBERED:]
        kept = ""
        if self._saved < SAVED:
            path = self.folder / f"step-{step:08d}.pt"
            lost = False
            if rank() == guilty.rank and batch is not None:
                lost = not save_batch(path, batch, step=step, loss=guilty.offence.loss)
            if not any_rank(lost):
                self._saved += 1
                kept = f"; kept in {self.folder.name}/{path.name}"
        where = f" on rank {guilty.rank}" if len(ranks) > 1 else ""
        if len(self._unsaid) < _NAMED:
            self._unsaid.append(f"step {step}{where}: {guilty.line}{kept}")
        self._unsaid_steps += 1
        return self.limits.exceeded(in_a_row=self.in_a_row, skipped=self.skipped, steps=step)

    def tell(self, where: Position, *, aloud: bool) -> None:
        """One row and one warning for all steps that were left out since the last ones.

        Args:
            where: Where training stands.
            aloud: Whether this is the rank that writes.
        """
        if not self._unsaid_steps:
            return
        if aloud:
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

    def failure(self, why: str, *, step: int, module: torch.nn.Module) -> Diverged:
        """The error of a run that is beyond its limits."""
        return too_many_left_out(
            why,
            step=step,
            case_ids=self._row_cases,
            kept=str(self.folder) if self._saved else None,
            broken=nonfinite_names(module.state_dict()),
        )

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

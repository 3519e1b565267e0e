"""Validation in a process of its own, beside the training: `validation.where=apart`.

After the checkpoint of an epoch whose validation is due, a process of low priority scores the tuning cases by it. Its
result is applied when it is there, under the n, step and epoch of that checkpoint: rows in the journal first, then the
score beside the checkpoint, which from then on counts as validated. A kill between the two is mended by applying the
result once more; a row that is there is not written again.

With several ranks the first one does all this. What is decided from the scores is decided at the end of an epoch,
where all ranks are told.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from segkit.callbacks.checkpointing import Checkpointing, validation_due
from segkit.callbacks.evaluation_queue import EvaluationQueue
from segkit.callbacks.recording import MetricSink
from segkit.errors import Preempted, StorageError
from segkit.ops.ranks import any_rank, first_given, rank
from segkit.runs.evaluations import Evaluation, log_of, result_of, steps_of_results
from segkit.runs.index import load_index
from segkit.runs.manifest import Entry, checkpoint_path, digest_of, read_manifest
from segkit.runs.scores import entry_of, unscored, write_score

_MONITOR = "val/score"
_POLL_S = 0.1
_logger = logging.getLogger(__name__)


class Measured(Protocol):
    """A row of the journal."""

    @property
    def n(self) -> int:
        """Training samples consumed."""

    @property
    def epoch(self) -> int:
        """Number of the epoch, from 1."""

    @property
    def key(self) -> str:
        """What was measured."""

    @property
    def value(self) -> float:
        """The measured value."""


class EvaluationApart(Checkpoint):
    """Keeps the queue going and applies its results.

    It counts as a checkpoint callback only for its turn: given to the trainer after `Checkpointing`, it finds the
    epoch's checkpoint written.

    Args:
        checkpointing: Writes the checkpoints; is told which must stay.
        queue: The processes.
        journal: Where the values go.
        measured: Reads the journal.
        every_n_epochs: Distance of validations.
        steps_per_epoch: Optimizer steps of an epoch.
    """

    def __init__(
        self,
        checkpointing: Checkpointing,
        queue: EvaluationQueue,
        journal: MetricSink,
        *,
        measured: Callable[[], Iterable[Measured]],
        every_n_epochs: int,
        steps_per_epoch: int,
    ) -> None:
        self.checkpointing, self.queue, self.journal, self.measured = checkpointing, queue, journal, measured
        self.every_n_epochs, self.steps_per_epoch = every_n_epochs, steps_per_epoch
        checkpointing.leased = lambda: queue.leased
        self._written: set[tuple[str, int]] = set()
        self._scores: dict[int, float] = {}

    def scores(self) -> Sequence[tuple[int, float]]:
        """(epoch, score) of what was validated so far, by epoch, the same on every rank: a collective."""
        return first_given(sorted(self._scores.items()) if rank() == 0 else None) or []

    @property
    def latest(self) -> dict[str, float]:
        """For the line of an epoch: the newest score and the epoch it is of."""
        epoch = max(self._scores, default=None)
        return {} if epoch is None else {"late/score": self._scores[epoch], "late/epoch": float(epoch)}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Read what earlier lives have measured, and apply what they had not come to."""
        if stage != "fit" or not trainer.is_global_zero:
            return
        for row in self.measured():
            if row.key.startswith("val/"):
                self._written.add((row.key, row.n))
            if row.key == _MONITOR:
                self._scores[row.epoch] = row.value
        pending = {entry.step for entry in self._unscored()}
        for step in steps_of_results(self.queue.folder):
            if step not in pending or self._apply_file(step):
                self._forget(step)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        """A validation that was cut short in the life before, in the training process, is finished there."""
        if validation_due(checkpoint):
            trainer.limit_val_batches = 1.0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """That was the last one here."""
        trainer.limit_val_batches = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Begin with what a killed life has left: the newest two checkpoints that are due, in their order."""
        if trainer.is_global_zero:
            for entry in self._unscored()[-2:]:
                self.queue.submit(entry.step)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: object,  # noqa: ARG002
        batch: object,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Look whether a result is there: one system call where none is."""
        if trainer.is_global_zero:
            self._tick()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Evaluate the epoch's checkpoint, where that is due."""
        if not trainer.is_global_zero:
            return
        self._tick()
        if any(entry.step == trainer.global_step for entry in self._unscored()):
            self.queue.submit(trainer.global_step)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Wait for what is at work and what waits, each within its time: the selection needs their scores.

        Raises:
            Preempted: A signal asked for the end; on the next start the checkpoint is evaluated anew.
        """
        stop = self.checkpointing.stop
        while True:
            if trainer.is_global_zero:
                self._tick()
            reason = first_given(stop.reason)
            if reason is not None:
                stop.reason = None
                raise Preempted(
                    "The run was asked to stop while it waited for its last evaluation.",
                    where=str(self.queue.folder),
                    why=reason,
                    mend="run the same command again: it goes on from here",
                )
            if not any_rank(bool(self.queue.leased)):
                return
            time.sleep(_POLL_S)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """The training has ended: so does the evaluation."""
        self.queue.close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """The same."""
        self.queue.close()

    def _unscored(self) -> list[Entry]:
        entries = load_index(self.checkpointing.root)
        return unscored(entries, every_n_epochs=self.every_n_epochs, steps_per_epoch=self.steps_per_epoch)

    def _tick(self) -> None:
        result = self.queue.poll()
        if result is not None and self._apply(result):
            self._forget(result.step)

    def _forget(self, step: int) -> None:
        try:
            for path in (result_of(self.queue.folder, step), log_of(self.queue.folder, step)):
                path.unlink(missing_ok=True)
        except OSError as error:  # what is applied stays applied: the next start removes it
            _logger.info("%s", error)

    def _apply_file(self, step: int) -> bool:
        try:
            return self._apply(Evaluation.read(self.queue.folder, step))
        except (OSError, ValueError) as error:
            _logger.info("Step %d is evaluated anew: %s", step, error)
            return False

    def _apply(self, result: Evaluation) -> bool:
        """Rows, then score; says whether that went well. Where it did not, the next life evaluates anew."""
        folder = checkpoint_path(self.checkpointing.root, result.step)
        try:
            manifest = read_manifest(folder)
            if digest_of(manifest) != result.manifest:
                raise StorageError("The result is of another checkpoint of this name.", where=str(folder))
            entry = entry_of(folder, manifest)
            if entry.validated_n != entry.n:
                self._write(result, entry)
                write_score(folder, score=result.score, per_case=result.per_case, manifest=result.manifest)
                self.checkpointing.refresh()
        except (OSError, StorageError) as error:
            _logger.warning("The score of step %d could not be kept (%s); training goes on.", result.step, error)
            return False
        if result.score is not None:
            self._scores[entry.epoch] = result.score
            _logger.info("Epoch %d, evaluated apart: %s %.4f", entry.epoch, _MONITOR, result.score)
        return True

    def _write(self, result: Evaluation, entry: Entry) -> None:
        new = {key: value for key, value in result.values.items() if (key, entry.n) not in self._written}
        if new:
            self.journal.metrics(new, n=entry.n, step=entry.step, epoch=entry.epoch)
            self._written |= {(key, entry.n) for key in new}
        if self.checkpointing.before_save is not None:
            self.checkpointing.before_save()  # the rows are on the disk before the score that says they are

"""Checkpoints in segkit's own format, through Lightning's hooks.

When a checkpoint is written decides whether a resume is exact. At the end of an epoch: in `on_train_epoch_end`,
after validation. Within an epoch: in `on_train_batch_end`, never of the epoch's last batch (Lightning would count
the epoch twice or not at all) and never between two halves of an accumulated step (its gradients are nowhere).
Where the run must stop in the middle of a validation: in `on_validation_epoch_end`, as a checkpoint whose validation
is due; it runs before the next step.

With several ranks the first one writes. Whether to write, whether it went well and whether to stop are agreed on: a
rank that went another way would leave the others waiting for ever.
"""

import logging
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO

from segkit.callbacks.late_verdict import settle_all
from segkit.callbacks.position import position
from segkit.callbacks.preemption import StopRequest
from segkit.errors import ExitCode, Preempted, StorageError, UsageError, exit_code
from segkit.ops.ranks import any_rank, first_given
from segkit.runs.checkpoints import read_checkpoint, sweep, write_checkpoint
from segkit.runs.files import remove_tree
from segkit.runs.index import refresh
from segkit.runs.manifest import Entry, checkpoint_path

ENTRY = "segkit_entry"
"""Key of the checkpoint's entry in Lightning's dictionary."""
TRAINING_WEIGHTS = "segkit_training_weights"
"""Key of the weights that the optimizer moves, where `state_dict` holds averaged ones."""
_TRIES = 3
_logger = logging.getLogger(__name__)


class DirectoryCheckpointIO(CheckpointIO):
    """Lightning's checkpoint dictionary to and from a checkpoint folder: `Trainer(plugins=[...])`.

    `around`, where it is set, is given the writing to do; the first rank calls it between the ranks' meeting points,
    so an exception that it keeps to itself leaves no other rank waiting.
    """

    around: Callable[[Callable[[], None]], None] | None = None

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: object = None,  # noqa: ARG002  Lightning's signature
    ) -> None:
        """Write the folder `path`: weights, optimizer and everything else apart from one another."""
        if self.around is not None:
            self.around(partial(self._write, checkpoint, Path(path)))
        else:
            self._write(checkpoint, Path(path))

    def _write(self, checkpoint: Mapping[str, Any], path: Path) -> None:
        rest = dict(checkpoint)
        entry = rest.pop(ENTRY, None) or {
            "step": checkpoint["global_step"],
            "n": 0,
            "epoch": checkpoint["epoch"],
            "validated_n": 0,
            "score": None,
            "per_case": {},
        }
        write_checkpoint(
            path,
            Entry.from_json(entry),
            model=rest.pop("state_dict"),
            training=rest.pop(TRAINING_WEIGHTS, None),
            optimizer={"optimizer_states": rest.pop("optimizer_states", [])},
            state=rest,
        )

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: object = None,  # noqa: ARG002  always to the CPU; the strategy moves it
        weights_only: bool | None = None,  # noqa: ARG002  always true
    ) -> dict[str, Any]:
        """Verify the folder `path` and give Lightning its dictionary back.

        Raises:
            StorageError: A file is damaged.
        """
        contents = read_checkpoint(Path(path))
        checkpoint = {**contents.state, **contents.optimizer, "state_dict": contents.model}
        checkpoint[ENTRY] = contents.entry.to_json()
        if contents.training is not None:
            checkpoint[TRAINING_WEIGHTS] = contents.training
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove the folder `path`."""
        remove_tree(Path(path))


class Checkpointing(Checkpoint):
    """Writes a checkpoint after each epoch, and within one where it is long or the run must stop.

    A full or failing disk leaves the earlier checkpoints untouched and training goes on with a warning; the third
    failure in a row ends the run.

    Args:
        root: Folder of the checkpoints.
        top_k: How many of the highest score stay.
        keep: How many of the newest stay, at least two.
        monitor: Name of the logged score; higher is better.
        every_s: Longest time between two checkpoints within an epoch, s; None for none within epochs.
        before_save: Called first: whatever must be on the disk before the checkpoint that counts on it.
        stop: Asks for a checkpoint and an end with `Preempted`; one of its own if not given.
    """

    def __init__(
        self,
        root: Path,
        *,
        top_k: int = 1,
        keep: int = 2,
        monitor: str = "val/score",
        every_s: float | None = 600.0,
        before_save: Callable[[], None] | None = None,
        stop: StopRequest | None = None,
    ) -> None:
        self.root, self.top_k, self.keep, self.monitor = Path(root), top_k, keep, monitor
        self.every_s, self.before_save = every_s, before_save
        self.save_now = False
        self.leased: Callable[[], Collection[int]] = tuple
        self.stop = stop or StopRequest()
        self._validated_n = 0
        self._validation_due = False
        self._error: OSError | StorageError | None = None
        self._score: float | None = None
        self._per_case: dict[str, float] = {}
        self._saved_at = time.monotonic()
        self._failures = 0
        self._epochs = 0

    def refresh(self) -> None:
        """Write index and pointers and remove what need not be kept; `leased` names what somebody is reading."""
        refresh(self.root, top_k=self.top_k, keep=self.keep, leased=self.leased())

    def preempt(self, reason: str) -> None:
        """Ask for a checkpoint at the next border of a step and an end with `Preempted`. Safe in a signal handler."""
        self.stop.ask(reason)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Remove what a killed life left half-written.

        Raises:
            UsageError: The trainer has `max_steps`, with which Lightning 2.6 does not resume.
        """
        if trainer.max_steps != -1:
            raise UsageError(
                "Trainer(max_steps=...) cannot be resumed.",
                where=f"max_steps={trainer.max_steps}",
                mend="give it max_epochs instead, as trainer.max_steps of the configuration is made into",
            )
        if stage == "fit" and trainer.is_global_zero:
            sweep(self.root)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Start the clock of checkpoints within an epoch."""
        self._saved_at = time.monotonic()
        self.stop.connect()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where the run must stop: a checkpoint of the epoch whose validation was cut short, and the end."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if any_rank(bool(getattr(pl_module, "validation_cut_short", False))):
            self._validation_due = True
            self._save(trainer, epochs=trainer.current_epoch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the score and the cases it came from."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        score = trainer.callback_metrics.get(self.monitor)
        self._score = None if score is None else float(score)
        self._per_case = dict(cast("Mapping[str, float]", getattr(pl_module, "last_per_case", {})))
        self._validated_n = position(trainer).n

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: object,  # noqa: ARG002
        batch: object,
        batch_idx: int,
    ) -> None:
        """Write a checkpoint within the epoch, where one was asked for or the time has come."""
        due = self.every_s is not None and time.monotonic() - self._saved_at >= self.every_s
        wanted = any_rank(due or self.save_now or self.stop.reason is not None)
        if not wanted or trainer.is_last_batch or trainer.should_stop:
            return  # the epoch ends with this batch, and with a checkpoint
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        consumed = getattr(batch, "n", ())
        if consumed and max(consumed) >= position(trainer).n:
            raise RuntimeError("the batch must be counted as consumed before the callbacks' on_train_batch_end")
        self._save(trainer, epochs=trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Write the checkpoint of the epoch, after validation."""
        self._save(trainer, epochs=trainer.current_epoch + 1)

    def on_save_checkpoint(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        checkpoint: dict[str, Any],
    ) -> None:
        """Add what the checkpoint stands for."""
        where = position(trainer)
        fresh = self._validated_n == where.n
        checkpoint[ENTRY] = Entry(
            step=where.step,
            n=where.n,
            epoch=self._epochs,
            validated_n=self._validated_n,
            score=self._score if fresh else None,
            per_case=self._per_case if fresh else {},
        ).to_json()
        if self._validation_due:
            _mark_validation_due(checkpoint["loops"])

    def state_dict(self) -> dict[str, Any]:
        """Position of the latest validation."""
        return {"validated_n": self._validated_n}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the position of the latest validation over."""
        self._validated_n = int(state_dict["validated_n"])

    def _save(self, trainer: Trainer, *, epochs: int) -> None:
        settle_all(trainer)
        self._epochs = epochs
        path = checkpoint_path(self.root, trainer.global_step)
        stop = first_given(self.stop.reason)
        error = self._write(trainer, path)
        if error is None:
            self._failures = 0
        else:
            self._failed(path, error, trainer.lightning_module, stopping=stop is not None)
        self.save_now = False
        self._saved_at = time.monotonic()
        if stop is not None:
            self.stop.reason = None
            raise Preempted(
                "The run was asked to stop and has saved its state.",
                where=str(path),
                why=stop,
                mend="run the same command again: it goes on from here",
            )

    def _write(self, trainer: Trainer, path: Path) -> OSError | StorageError | None:
        """Write on the first rank; every rank is told what went wrong."""
        plugin = trainer.strategy.checkpoint_io
        if not isinstance(plugin, DirectoryCheckpointIO):
            raise TypeError("checkpoints are written by DirectoryCheckpointIO: Trainer(plugins=[...])")
        self._error, plugin.around = None, self._around
        try:
            trainer.save_checkpoint(path)
        finally:
            plugin.around = None
        told = first_given(None if self._error is None else (exit_code(self._error), str(self._error)))
        if told is None or self._error is not None:
            return self._error
        return StorageError(f"the first rank could not write it: {told[1]}")

    def _around(self, write: Callable[[], None]) -> None:
        try:
            if self.before_save is not None:
                self.before_save()
            write()
            self.refresh()
        except (OSError, StorageError) as error:
            self._error = error

    def _failed(self, path: Path, error: OSError | StorageError, module: torch.nn.Module, *, stopping: bool) -> None:
        if exit_code(error) != ExitCode.IO and not isinstance(error, PermissionError):
            raise error
        self._failures += 1
        needed = 3 * sum(p.numel() * p.element_size() for p in module.parameters())
        free = shutil.disk_usage(self.root if self.root.is_dir() else self.root.parent).free
        why = f"{error}; needs about {needed / 1e6:.1f} MB, {free / 1e6:.1f} MB are free"
        if self._failures >= _TRIES or stopping:
            raise StorageError(
                f"{self._failures} checkpoints in a row could not be written.",
                where=str(path),
                why=why,
                mend="make room or repair the drive, then run the same command again",
            ) from error
        _logger.warning("The checkpoint %s could not be written (%s); training goes on.", path, why)


def validation_due(checkpoint: Mapping[str, Any]) -> bool:
    """Whether Lightning's dictionary is of a checkpoint whose validation was cut short and is still to be done."""
    total = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]["total"]
    return bool(total["ready"] == total["started"] == 1 and total["processed"] == 0)


def _mark_validation_due(loops: dict[str, Any]) -> None:
    """Say in the state of Lightning's loops that a validation was begun and not a single image of it finished.

    Lightning then runs it, whole, before it goes on; as the state stands at the end of a validation it would not.
    """
    progress = loops["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    nothing = {"ready": 0, "started": 0, "processed": 0, "completed": 0}
    progress["total"] = {**nothing, "ready": 1, "started": 1}
    progress["current"] = dict(nothing)
    progress["is_last_batch"] = False

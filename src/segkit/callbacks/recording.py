"""What was measured, into the run's journal, before the checkpoint that counts on it.

A Lightning logger gets an epoch's values after `on_train_epoch_end`, when the checkpoint is already written: a kill
between the two would lose them for good, since a resume starts after that epoch. This callback writes them first.
It also keeps the running means of the epoch in the checkpoint (Lightning does not), so that an epoch that was
interrupted ends with the same means.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from segkit.callbacks.position import position
from segkit.ops.ranks import gather_objects, world_size


@runtime_checkable
class MetricSink(Protocol):
    """Where measured values go."""

    def metrics(self, values: Mapping[str, float], *, n: int, step: int, epoch: int) -> None:
        """Write values that are the same in every life of the run."""


class Recording(Checkpoint):
    """Writes `train/...` by step, its means (`..._epoch`) and `val/...` by epoch, and the learning rate.

    It counts as a checkpoint callback only to be called after the module's own `on_train_epoch_end`; give it to the
    trainer before `Checkpointing`. Log training values with `on_step=True`; `on_epoch` is not needed.

    Args:
        journal: Where the values go.
        every_n_steps: Optimizer steps between two rows of training values.

    `latest` holds the last epoch's values, those of its validation only if it had one.
    """

    def __init__(self, journal: MetricSink, *, every_n_steps: int = 10) -> None:
        self.journal, self.every_n_steps = journal, every_n_steps
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor | int] = {}
        self._seen: dict[str, Tensor] = {}
        self._step: int | None = None
        self._validation: dict[str, float] = {}
        self.latest: dict[str, float] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Count optimizer steps from here."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: object,  # noqa: ARG002
        batch: object,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Add to the epoch's means; write a row when it is due. Waits for the device only then."""
        logged = _logged(trainer, on_step=True)
        # Lightning keeps a value until the epoch ends; one that is still the same memory was logged in an earlier step.
        values = {k: v for k, v in logged.items() if k not in self._seen or v.data_ptr() != self._seen[k].data_ptr()}
        self._seen = logged
        for key in (key for key in values if key.startswith("train/")):
            value = values[key].double()
            finite = value.isfinite()  # a step that was left out must not make the epoch's mean NaN
            value = value.where(finite, 0.0)
            self._sums[key] = self._sums[key].to(value.device) + value if key in self._sums else value
            self._counts[key] = self._counts.get(key, 0) + finite.long()
        stepped, self._step = trainer.global_step != self._step, trainer.global_step
        if stepped and trainer.global_step % self.every_n_steps == 0 and values:
            row = {key.removesuffix("_step"): float(value) for key, value in values.items()}
            self._write(trainer, {**over_ranks(row), **_rates(trainer)})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Write what validation has shown."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        metrics = trainer.callback_metrics.items()
        self._validation = {key: float(value) for key, value in metrics if key.startswith("val/")}
        self._write(trainer, self._validation)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Write the epoch's means."""
        means = over_ranks({_mean_of(key): _ratio(total, self._counts[key]) for key, total in self._sums.items()})
        other = {key: float(value) for key, value in _logged(trainer, on_step=False).items() if key not in means}
        self._write(trainer, {**means, **other})
        self.latest = {**means, **other, **self._validation}
        self._sums, self._counts, self._seen, self._validation = {}, {}, {}, {}

    def state_dict(self) -> dict[str, Any]:
        """The unfinished epoch's sums, the mean of all ranks: whatever their number in the next life."""
        sums = {key: value.cpu() for key, value in self._sums.items()}
        if world_size() > 1:
            means = over_ranks({key: float(value) for key, value in sums.items()})
            sums = {key: torch.tensor(value, dtype=torch.float64) for key, value in means.items()}
        return {"sums": sums, "counts": {key: int(count) for key, count in self._counts.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the unfinished epoch's sums over."""
        self._sums, self._counts = dict(state_dict["sums"]), dict(state_dict["counts"])

    def _write(self, trainer: Trainer, values: Mapping[str, float]) -> None:
        where = position(trainer)
        if values and trainer.is_global_zero:
            self.journal.metrics(values, n=where.n, step=where.step, epoch=where.epoch)


def over_ranks(values: Mapping[str, float]) -> dict[str, float]:
    """Mean over the ranks of what each has measured on its equal share of a batch.

    Of a `.../min` and a `.../max` it is the smallest and the largest.
    """
    ranks = gather_objects(dict(values))
    if len(ranks) == 1:
        return ranks[0]
    combine = {"min": min, "max": max}
    return {
        key: combine.get(key.rpartition("/")[2], _mean)([each[key] for each in ranks if key in each]) for key in values
    }


def _ratio(total: Tensor, count: Tensor | int) -> float:
    return float(total) / int(count) if int(count) else math.nan


def _mean_of(key: str) -> str:
    """Name of the mean over the epoch of what was logged by step."""
    return f"{key.removesuffix('_step')}_epoch"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else sum(values) / len(values)


def _logged(trainer: Trainer, *, on_step: bool) -> dict[str, Tensor]:
    """What the module has logged in this step or epoch, nothing older.

    `trainer.logged_metrics` also holds values of long ago; the result collection behind it does not.
    """
    results = trainer._results
    if results is None:
        return {}
    logged = results.metrics(on_step)["log"]
    return {key: value.detach() for key, value in logged.items() if isinstance(value, Tensor)}


def _rates(trainer: Trainer) -> dict[str, float]:
    """Learning rate that the next step will use, of the first parameter group."""
    rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
    rate = float(rates[0]) if rates else math.nan
    return {"lr": rate} if math.isfinite(rate) else {}

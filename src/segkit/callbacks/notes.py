"""Notes about a run that goes wrong without failing.

Three things that people find out days too late are looked for at every epoch, and said once each:

    nothing learnt      after the warm-up the validation score still stands at zero
    over-fitting        training Dice runs away from validation Dice (the two are defined alike)
    normalisation       the augmented batches no longer look like the prepared data: some transform breaks
                        the z-score (gamma on negative values, a clip at zero, a wrong range)
"""

import logging
import math
from collections.abc import Mapping

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

logger = logging.getLogger(__name__)

NOTHING = 0.01
"""A score below this is nothing learnt."""
RUNAWAY = 0.15
"""Training Dice above validation Dice by more than this, `PERSISTENT` validations running, is over-fitting."""
PERSISTENT = 3
MEAN_DRIFT = 0.5
"""Shift of the mean, in standard deviations of the prepared data, beyond which normalisation is broken."""
SPREAD_RATIO = 2.0
"""Factor of the standard deviation, up or down, beyond which normalisation is broken."""
LOWEST = 0.5
"""Only data that reach this many standard deviations below their mean can be seen to be clipped."""
CLIPPED = 0.3
"""Batches whose lowest value keeps less than this share of the prepared data's depth were clipped."""


def nothing_learnt(score: float, *, epoch: int, warmup_epochs: int) -> str | None:
    """A note when the score is still nothing after the warm-up."""
    if epoch < warmup_epochs or score >= NOTHING:
        return None
    return (
        f"nothing learnt after {epoch + 1} epochs (val/score {score:.4f}): look at overlays/, check the label ids "
        "with `python -m segkit.check`, try a tenth of optimizer.lr"
    )


def over_fitting(gaps: list[float]) -> str | None:
    """A note when the last gaps between training and validation Dice are all wide."""
    recent = gaps[-PERSISTENT:]
    if len(recent) < PERSISTENT or min(recent) <= RUNAWAY:
        return None
    return (
        f"training Dice is {recent[-1]:.2f} above validation Dice: the network memorises; more cases, "
        "augmentation=nnunet or plan=tiny would narrow it"
    )


def normalisation_drift(augmented: Mapping[str, float], prepared: Mapping[str, float]) -> str | None:
    """A note when mean, spread or lower end of the augmented batches left those of the prepared data.

    The lower end betrays what mean and spread hide: an image clipped at zero after the z-score.
    """
    spread = max(prepared["std"], 1e-8)
    shift = (augmented["mean"] - prepared["mean"]) / spread
    ratio = augmented["std"] / spread
    low, prepared_low = ((each["min"] - prepared["mean"]) / spread for each in (augmented, prepared))
    clipped = prepared_low < -LOWEST and low > prepared_low * CLIPPED
    if abs(shift) <= MEAN_DRIFT and 1 / SPREAD_RATIO <= ratio <= SPREAD_RATIO and not clipped:
        return None
    return (
        f"augmented batches have mean {augmented['mean']:.2f}, spread {augmented['std']:.2f} and lowest value "
        f"{augmented['min']:.2f}, the prepared data {prepared['mean']:.2f}, {prepared['std']:.2f} and "
        f"{prepared['min']:.2f}: a transform breaks the normalisation; "
        "try augmentation=none and bring them back one by one"
    )


class Notes(Checkpoint):
    """Says each note once, to the log.

    It counts as a checkpoint callback only for its turn: after the module has logged the epoch's values.

    Args:
        prepared: mean, std and min of the prepared training images inside `valid`.
        warmup_epochs: Epochs before "nothing learnt" may be said.
    """

    def __init__(self, *, prepared: Mapping[str, float], warmup_epochs: int) -> None:
        self.prepared = prepared
        self.warmup_epochs = warmup_epochs
        self.said: list[str] = []
        self._gaps: list[float] = []
        self._inputs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the augmented batches with the prepared data, training with validation."""
        del pl_module
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        names = ("mean", "std", "min")
        if all(math.isfinite(metrics.get(f"input/{name}", math.nan)) for name in names):
            # The last logging interval of each epoch; a few epochs make a mean that one odd batch cannot move.
            self._inputs = [*self._inputs[-9:], {name: metrics[f"input/{name}"] for name in names}]
            count = len(self._inputs)
            average = {name: sum(each[name] for each in self._inputs) / count for name in names}
            if count >= PERSISTENT:
                self._say("normalisation", normalisation_drift(average, self.prepared))
        if "val/score" in metrics:
            epoch = trainer.current_epoch
            note = nothing_learnt(metrics["val/score"], epoch=epoch, warmup_epochs=self.warmup_epochs)
            self._say("nothing learnt", note)
        if {"train/dice", "val/dice"} <= metrics.keys():
            self._gaps.append(metrics["train/dice"] - metrics["val/dice"])
            self._say("over-fitting", over_fitting(self._gaps))

    def _say(self, kind: str, note: str | None) -> None:
        if note is not None and kind not in self.said:
            self.said.append(kind)
            logger.warning("note: %s", note)

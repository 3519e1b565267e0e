"""The plan: every number that a training needs and the data or the device decides, each with its reason.

A plan is made once, written to plan.json at the first start and read from there ever after: a resumed or an
evaluated run never measures again.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from segkit.types import Labels, Size, Spacing

Scheme: TypeAlias = Literal["zscore", "ct", "none"]
Precision: TypeAlias = Literal["bf16-mixed", "16-mixed", "32-true"]

NNUNET_RUNGS = frozenset({"nnunet", "resenc_m", "resenc_l", "resenc_xl"})
"""Rungs that follow nnU-Net to the digit, its coarsest level without supervision included."""
_ADDED = frozenset({"num_classes", "max_steps"})
"""Written for readers; they follow from the fields."""


@dataclass(frozen=True)
class Normalisation:
    """How one channel's intensities are normalised.

    zscore: (x - mean) / std of the case, inside the nonzero region where `masked`, 0 outside it.
    ct: clip to [low, high], then (x - mean) / std with the data set's foreground statistics.
    none: as in the file.
    """

    scheme: Scheme
    masked: bool = False
    mean: float | None = None
    std: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Plan:
    """A plan, JSON both ways. Sizes and spacings are by axis in RAS+ order (height, width for pictures).

    Args:
        name: Rung of the ladder.
        dimensions: Spatial axes, 2 or 3.
        channels: Channel names.
        labels: Meaning of the label values.
        spacing: Spacing the images are resampled to.
        unit: "mm" or "pixel".
        normalisation: One a channel.
        patch_size: Voxels of a training patch and of an inference tile.
        batch_size: Samples a step, of all devices together.
        features: Channels by stage of the network.
        strides: Downsampling at the entry of each stage.
        kernel_sizes: Kernel of each stage.
        blocks_per_stage: Residual blocks by stage, for networks that have them.
        batch_dice: Whether the Dice loss sums over the batch before it divides.
        steps_per_epoch: Optimiser steps an epoch.
        max_epochs: Epochs.
        learning_rate: Peak learning rate.
        ema_decay: Decay a step of the average of the weights that is validated and kept; 0 where there is none.
        validation_every_n_epochs: Whole-image validation after every so many epochs.
        precision: Lightning's name for it.
        channels_last: Whether the network and its input lie channels last in memory: speed, and the last digits.
        compile: Whether the network is compiled: speed, and the last digits.
        tile_batch: Tiles predicted together.
        flip_axes: Spatial axes along which a mirror image is still a possible patient.
        reasons: Why, by field name.
    """

    name: str
    dimensions: int
    channels: tuple[str, ...]
    labels: Labels
    spacing: Spacing
    unit: Literal["mm", "pixel"]
    normalisation: tuple[Normalisation, ...]
    patch_size: Size
    batch_size: int
    features: tuple[int, ...]
    strides: tuple[Size, ...]
    kernel_sizes: tuple[Size, ...]
    blocks_per_stage: tuple[int, ...]
    batch_dice: bool
    steps_per_epoch: int
    max_epochs: int
    learning_rate: float
    validation_every_n_epochs: int
    precision: Precision
    tile_batch: int
    flip_axes: tuple[int, ...]
    ema_decay: float = 0.0
    channels_last: bool = False
    compile: bool = False
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Classes, background included."""
        return self.labels.num_classes

    @property
    def in_channels(self) -> int:
        """Input channels."""
        return len(self.channels)

    @property
    def max_steps(self) -> int:
        """Optimiser steps of the whole run: `trainer.max_steps` of the line that makes it again."""
        return self.steps_per_epoch * self.max_epochs

    @property
    def supervised_levels(self) -> int | None:
        """Decoder levels with a supervision head; None for all. nnU-Net gives its coarsest head no weight."""
        return max(1, len(self.features) - 2) if self.name in NNUNET_RUNGS else None

    @property
    def masked(self) -> bool:
        """Whether any channel is normalised inside the nonzero region only."""
        return any(channel.masked for channel in self.normalisation)

    def preprocessing(self) -> dict[str, Any]:
        """The part that decides the voxels of a prepared case: with the files' contents, the store's key."""
        record = self.to_json()
        return {key: record[key] for key in ("dimensions", "channels", "labels", "spacing", "normalisation")}

    def to_json(self) -> dict[str, Any]:
        """JSON-clean fields; `num_classes` and `max_steps` are added for readers."""
        record: dict[str, Any] = _listed(asdict(self))
        return {**record, "num_classes": self.num_classes, "max_steps": self.max_steps}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Plan":
        """The inverse of `to_json`."""
        values = {key: _tupled(value) for key, value in record.items() if key not in _ADDED}
        # A plan written before the memory format was in it: what was done then.
        values.setdefault("channels_last", record.get("precision") == "bf16-mixed")
        labels = record["labels"]
        values["labels"] = Labels(
            names=tuple(labels["names"]),
            ids=tuple(labels["ids"]),
            kind=labels["kind"],
            ignore_id=labels["ignore_id"],
        )
        values["normalisation"] = tuple(Normalisation(**channel) for channel in record["normalisation"])
        values["reasons"] = dict(record.get("reasons", {}))
        return cls(**values)


def _listed(value: Any) -> Any:  # noqa: ANN401  JSON values
    """Tuples to lists, as JSON would return them."""
    if isinstance(value, Mapping):
        return {key: _listed(inner) for key, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return [_listed(inner) for inner in value]
    return value


def _tupled(value: Any) -> Any:  # noqa: ANN401  JSON values
    return tuple(_tupled(inner) for inner in value) if isinstance(value, (list, tuple)) else value

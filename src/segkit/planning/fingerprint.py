"""The fingerprint: what a plan is made from, gathered case by case and then pooled.

`case_facts` looks at one cropped image; `pool_facts` puts cases together. A case keeps its foreground
intensities as 1000 quantiles and two moments, so that the pooled percentiles need no random subsample and
every case weighs the same, however large its foreground is.

Reference:
    Isensee et al. 2021, nnU-Net, Nature Methods 18, supplement "data set fingerprint".
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from segkit.types import Size, Spacing

NUM_QUANTILES = 1000


@dataclass(frozen=True)
class ChannelFacts:
    """Foreground intensities of one channel of one case.

    Args:
        mean: Mean.
        std: Standard deviation.
        minimum: Smallest value.
        maximum: Largest value.
        quantiles: The ((i + 0.5) / 1000)-quantiles.
    """

    mean: float
    std: float
    minimum: float
    maximum: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class CaseFacts:
    """What one case contributes.

    Args:
        spacing: mm (or pixel) by axis in RAS+ order.
        native_shape: Voxels before the crop to nonzero.
        shape: Voxels after it.
        class_voxels: Voxels of each class, background first.
        num_channels: Channels of the image.
        channels: Foreground intensities by channel; empty where the case has no foreground.
        unit: "mm" or "pixel".
    """

    spacing: Spacing
    native_shape: Size
    shape: Size
    class_voxels: tuple[int, ...]
    num_channels: int
    channels: tuple[ChannelFacts, ...]
    unit: Literal["mm", "pixel"]

    def to_json(self) -> dict[str, Any]:
        """JSON-clean fields."""
        # Shallow: `asdict` would copy each of the thousand quantiles by itself.
        return {**vars(self), "channels": [dict(vars(channel)) for channel in self.channels]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "CaseFacts":
        """The inverse of `to_json`."""
        return cls(
            spacing=tuple(record["spacing"]),
            native_shape=tuple(record["native_shape"]),
            shape=tuple(record["shape"]),
            class_voxels=tuple(record["class_voxels"]),
            num_channels=record["num_channels"],
            channels=tuple(ChannelFacts(**{**c, "quantiles": tuple(c["quantiles"])}) for c in record["channels"]),
            unit=record["unit"],
        )


@dataclass(frozen=True)
class Intensity:
    """Foreground intensities of one channel over all cases, each case with the same weight."""

    mean: float
    std: float
    minimum: float
    maximum: float
    median: float
    percentile_00_5: float
    percentile_99_5: float


@dataclass(frozen=True)
class Fingerprint:
    """What the planner knows of a data set; made from training and tuning cases only.

    Args:
        channels: Channel names.
        spacings: Spacing of each case.
        shapes: Voxels of each case after the crop to nonzero.
        relative_size: Median over the cases of voxels after the crop / voxels before it.
        class_voxels: Voxels of each class over all cases, background first.
        class_cases: Cases in which each class occurs.
        intensities: Foreground intensities by channel; empty where no case has foreground.
        unit: "mm", or "pixel" where no physical size is known.
    """

    channels: tuple[str, ...]
    spacings: tuple[Spacing, ...]
    shapes: tuple[Size, ...]
    relative_size: float
    class_voxels: tuple[int, ...]
    class_cases: tuple[int, ...]
    intensities: tuple[Intensity, ...]
    unit: Literal["mm", "pixel"]

    @property
    def num_cases(self) -> int:
        """Number of cases it was made from."""
        return len(self.shapes)

    @property
    def dimensions(self) -> int:
        """Spatial axes: 2 or 3."""
        return len(self.shapes[0])

    def to_json(self) -> dict[str, Any]:
        """JSON-clean fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Fingerprint":
        """The inverse of `to_json`."""
        return cls(
            channels=tuple(record["channels"]),
            spacings=tuple(tuple(s) for s in record["spacings"]),
            shapes=tuple(tuple(s) for s in record["shapes"]),
            relative_size=record["relative_size"],
            class_voxels=tuple(record["class_voxels"]),
            class_cases=tuple(record["class_cases"]),
            intensities=tuple(Intensity(**i) for i in record["intensities"]),
            unit=record["unit"],
        )


def case_facts(
    image: Float[np.ndarray, "C *S"],
    label: Int[np.ndarray, "*S"],
    *,
    spacing: Spacing,
    native_shape: Size,
    num_classes: int,
    unit: Literal["mm", "pixel"] = "mm",
) -> CaseFacts:
    """Facts of one case, from its image and label cut to the nonzero region (not normalised, not resampled).

    Args:
        image: (C, *S), intensities as in the file.
        label: (*S), class indices; -1 (ignored) counts nowhere.
        spacing: mm by axis.
        native_shape: Voxels before the crop.
        num_classes: Classes, background included.
        unit: "mm" or "pixel".
    """
    counts = np.bincount(label[label >= 0].ravel().astype(np.int64), minlength=num_classes)
    foreground = label > 0
    channels: tuple[ChannelFacts, ...] = ()
    if foreground.any():
        channels = tuple(_channel_facts(channel[foreground]) for channel in image)
    return CaseFacts(
        spacing=tuple(float(s) for s in spacing),
        native_shape=tuple(native_shape),
        shape=tuple(label.shape),
        class_voxels=tuple(int(c) for c in counts),
        num_channels=image.shape[0],
        channels=channels,
        unit=unit,
    )


def _channel_facts(values: Float[np.ndarray, "N"]) -> ChannelFacts:
    values = values.astype(np.float64)
    quantiles = _quantiles(values, (np.arange(NUM_QUANTILES) + 0.5) / NUM_QUANTILES)
    return ChannelFacts(
        mean=float(values.mean()),
        std=float(values.std()),
        minimum=float(values.min()),
        maximum=float(values.max()),
        quantiles=tuple(quantiles.tolist()),
    )


def _quantiles(values: Float[np.ndarray, "N"], levels: Float[np.ndarray, "Q"]) -> Float[np.ndarray, "Q"]:
    """Quantiles, linear between order statistics: q of n values lies at (n - 1) q of the sorted ones.

    Digit for digit what `numpy.quantile` gives, which partitions the values about each of the levels in turn; for a
    thousand levels one sort is a hundred times faster.
    """
    ordered = np.sort(values)
    position = levels * (values.size - 1)
    below = np.floor(position).astype(np.int64)
    low, high = ordered[below], ordered[np.minimum(below + 1, values.size - 1)]
    fraction, step = position - below, high - low
    # From the nearer end, so that a level that falls on a value gives that value.
    found: np.ndarray = np.where(fraction < 0.5, low + step * fraction, high - step * (1 - fraction))
    return found


def pool_facts(cases: Sequence[CaseFacts], *, channels: Sequence[str]) -> Fingerprint:
    """The fingerprint of a data set from the facts of its cases.

    Raises:
        ValueError: Where there is no case.
    """
    if not cases:
        raise ValueError("a fingerprint needs at least one case")
    voxels = np.array([case.class_voxels for case in cases], dtype=np.int64)
    relative = [float(np.prod(case.shape) / np.prod(case.native_shape)) for case in cases]
    with_foreground = [case.channels for case in cases if case.channels]
    intensities = tuple(_pool_channel([case[c] for case in with_foreground]) for c in range(len(channels)))
    return Fingerprint(
        channels=tuple(channels),
        spacings=tuple(case.spacing for case in cases),
        shapes=tuple(case.shape for case in cases),
        relative_size=float(np.median(relative)),
        class_voxels=tuple(int(v) for v in voxels.sum(axis=0)),
        class_cases=tuple(int(v) for v in (voxels > 0).sum(axis=0)),
        intensities=intensities if with_foreground else (),
        unit="mm" if all(case.unit == "mm" for case in cases) else "pixel",
    )


def _pool_channel(cases: Sequence[ChannelFacts]) -> Intensity:
    """Equal-weight mixture of the cases: moments exactly, percentiles from the pooled quantiles."""
    if not cases:
        return Intensity(0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    means, stds = (np.array([getattr(case, name) for case in cases]) for name in ("mean", "std"))
    mean = means.mean()
    pooled = np.concatenate([case.quantiles for case in cases])
    low, median, high = np.percentile(pooled, (0.5, 50.0, 99.5))
    return Intensity(
        mean=float(mean),
        # Variance of a mixture: mean of the variances plus variance of the means.
        std=float(np.sqrt((stds**2).mean() + means.var())),
        minimum=min(case.minimum for case in cases),
        maximum=max(case.maximum for case in cases),
        median=float(median),
        percentile_00_5=float(low),
        percentile_99_5=float(high),
    )

"""One case, and how far its probabilities can be believed, on its own voxels.

Everything is counted where `native_prediction` takes its classes from: the logits of each member resampled to the
image's voxels, and averaged. Both are linear, so that dividing by the temperature may come before or after them; the
softmax comes last.

Class k is looked at in its own region: the voxels within a margin of its truth or of its prediction. Far away from both
every network is right and sure, and a whole image would be the background's calibration. A temperature is fitted on the
union of the regions of all classes. Ignored voxels are neither in a region nor make one. Outside the crop there are no
logits: the background is certain there whatever the temperature is, and nothing is counted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from segkit.errors import DataError
from segkit.evaluation.case import NativeLabel, count_case
from segkit.evaluation.native import native_prediction, native_slabs
from segkit.evaluation.settings import EvaluationSettings
from segkit.metrics import reliability as tables
from segkit.metrics import temperature as temperatures
from segkit.metrics.quality import expected_dice
from segkit.metrics.reliability import Reliability
from segkit.metrics.temperature import TemperatureCurve
from segkit.ops.dilation import within_distance
from segkit.types import Geometry, PreparedCase

_Flat = np.ndarray[Any, np.dtype[np.intp]]


@dataclass(frozen=True)
class Region:
    """Voxels of the crop that are looked at, as places in its flat order, ascending.

    Args:
        by_class: Of each foreground class.
        union: Of any.
    """

    by_class: tuple[_Flat, ...]
    union: _Flat


@dataclass(frozen=True)
class CaseCalibration:
    """What was counted for a case before and after its logits were divided by the temperature.

    Args:
        case_id: Case.
        group: Group (person).
        voxels: In the union of the regions.
        nll: Mean negative log-likelihood there, before and after; NaN where the region is empty.
        before: Table of each foreground class in its region.
        after: The same at the temperature.
        dice: True Dice of each foreground class; NaN where the class is not in the reference.
        estimate: What the probabilities say it is, without the reference; see `metrics.quality`.
    """

    case_id: str
    group: str
    voxels: int
    nll: tuple[float, float]
    before: tuple[Reliability, ...]
    after: tuple[Reliability, ...]
    dice: Float[np.ndarray, " F"]
    estimate: Float[np.ndarray, " F"]


def region_of(prediction: NativeLabel, case: PreparedCase, *, num_classes: int, margin: float) -> Region:
    """The voxels within `margin` of the truth or the prediction of each foreground class.

    Args:
        prediction: Class of each native voxel.
        case: With its native reference.
        num_classes: K, background included.
        margin: In mm; in pixels where the image knows no mm.
    """
    crop, reference = _crop(case.geometry), _reference(case)
    predicted, truth = prediction[crop], reference[crop]
    annotated = truth >= 0
    union = np.zeros(truth.shape, dtype=bool)
    by_class = []
    for index in range(1, num_classes):
        seeds = annotated & ((predicted == index) | (truth == index))
        near = within_distance(seeds, margin, case.geometry.native_spacing) & annotated
        union |= near
        by_class.append(np.flatnonzero(near))
    return Region(tuple(by_class), np.flatnonzero(union))


def curve_of_case(members: Sequence[Float[Tensor, "K ..."]], case: PreparedCase, *, margin: float) -> TemperatureCurve:
    """What a case says of the temperature; without voxels where its region is empty.

    Args:
        members: Logits (K, *S) of each member, each on its own grid.
        case: With its native reference.
        margin: Of the region, mm.

    Raises:
        DataError: Logits that are not finite, or a case without reference.
    """
    _require_finite(members, case)
    prediction = native_prediction(members, case.geometry)
    region = region_of(prediction, case, num_classes=members[0].shape[0], margin=margin)
    truth = _reference(case)[_crop(case.geometry)].reshape(-1)
    total = temperatures.no_voxels()
    for start, logits in _flat_slabs(members, case.geometry):
        chosen = _part(region.union, start, logits.shape[1])
        total += temperatures.temperature_curve(logits[:, chosen - start], truth[chosen])
    return total


def calibration_of_case(
    members: Sequence[Float[Tensor, "K ..."]], case: PreparedCase, *, temperature: float, margin: float
) -> CaseCalibration:
    """Reliability by class at T = 1 and at the temperature, the true Dice and what the probabilities make of it.

    Args:
        members: Logits (K, *S) of each member, each on its own grid.
        case: With its native reference.
        temperature: T.
        margin: Of the regions, mm.

    Raises:
        DataError: Logits that are not finite, or a case without reference.
    """
    _require_finite(members, case)
    classes = members[0].shape[0]
    prediction = native_prediction(members, case.geometry)
    counts = count_case(prediction, case, num_classes=classes, settings=EvaluationSettings())
    region = region_of(prediction, case, num_classes=classes, margin=margin)
    crop = _crop(case.geometry)
    truth, predicted = _reference(case)[crop].reshape(-1), prediction[crop].reshape(-1)
    before, after = ([tables.no_voxels() for _ in range(1, classes)] for _ in range(2))
    losses = np.zeros(2)
    inside, chosen_as, expected = (np.zeros(classes - 1) for _ in range(3))
    for start, logits in _flat_slabs(members, case.geometry):
        stop = start + logits.shape[1]
        union = _part(region.union, start, logits.shape[1])
        for which, (t, sums) in enumerate(((1.0, before), (temperature, after))):
            probability = temperatures.softmax(logits, t)
            for k, places in enumerate(region.by_class):
                here = _part(places, start, logits.shape[1])
                sums[k] += tables.reliability(probability[k + 1, here - start], truth[here] == k + 1)
            if union.size:
                losses[which] += union.size * temperatures.mean_nll(logits[:, union - start], truth[union], t)
        for k in range(classes - 1):  # `probability` is now the one at the temperature
            of_class = predicted[start:stop] == k + 1
            inside[k] += probability[k + 1, of_class].sum(dtype=np.float64)
            chosen_as[k] += np.count_nonzero(of_class)
            expected[k] += probability[k + 1].sum(dtype=np.float64)
    voxels = int(region.union.size)
    nll = losses / voxels if voxels else np.full(2, np.nan)
    return CaseCalibration(
        case_id=case.case_id,
        group=case.group,
        voxels=voxels,
        nll=(float(nll[0]), float(nll[1])),
        before=tuple(before),
        after=tuple(after),
        dice=np.array([float(row.overlap.dice) for row in counts]),
        estimate=expected_dice(inside, chosen_as, expected),
    )


def _flat_slabs(members: Sequence[Tensor], geometry: Geometry) -> Iterator[tuple[int, Float[np.ndarray, "K V"]]]:
    """Place of the first voxel in the crop's flat order, and the mean logits of the voxels from there on."""
    row = int(np.prod([stop - start for start, stop in geometry.crop[1:]], dtype=np.int64))
    for rows, logits in native_slabs(members, geometry):
        yield rows.start * row, logits.reshape(logits.shape[0], -1).numpy()


def _part(places: _Flat, start: int, length: int) -> _Flat:
    low, high = np.searchsorted(places, (start, start + length))
    return places[low:high]


def _crop(geometry: Geometry) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in geometry.crop)


def _reference(case: PreparedCase) -> Int[np.ndarray, "..."]:
    if case.native_label is None:
        raise DataError("no reference to calibrate against", where=case.case_id, mend="take the image out of the set")
    if case.annotated is not None:
        raise DataError(
            "probabilities cannot be held against a reference that is not whole",
            where=case.case_id,
            why="some classes were not annotated in this case, so that its background is no truth",
            mend="calibrate on cases whose classes are all annotated",
        )
    return case.native_label


def _require_finite(members: Sequence[Tensor], case: PreparedCase) -> None:
    if not all(bool(torch.isfinite(logits).all()) for logits in members):
        raise DataError(
            "the network's output is not finite",
            where=f"case {case.case_id}",
            why="NaN or Inf in the logits",
            mend="look at the image's intensities; or trainer.precision=32-true",
        )

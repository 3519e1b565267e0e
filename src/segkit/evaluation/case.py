"""One case: predicted, brought back to its own voxels, counted."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from segkit.errors import DataError
from segkit.evaluation.native import Average, Stream, native_labels, native_prediction
from segkit.evaluation.settings import EvaluationSettings
from segkit.inference.predictor import ImagePredictor
from segkit.metrics.composite import ClassCounts
from segkit.metrics.lesion import LesionMatch, lesions, match_lesions
from segkit.ops.confusion import confusion
from segkit.types import PreparedCase, Spacing

logger = logging.getLogger(__name__)

NativeLabel = np.ndarray[Any, np.dtype[np.int16]]


@dataclass(frozen=True)
class CaseResult:
    """What was predicted for a case, and what was counted against its reference.

    Args:
        case_id: Case.
        group: Group (person).
        rows: One a foreground class.
        prediction: Class of each native voxel in RAS+ order; None once dropped.
        logits: (K, *S) on the plan's grid, float32; None once dropped, and where they came plane by plane.
    """

    case_id: str
    group: str
    rows: tuple[ClassCounts, ...]
    prediction: NativeLabel | None = None
    logits: Tensor | None = None

    def without_arrays(self) -> "CaseResult":
        """The numbers alone."""
        return replace(self, prediction=None, logits=None)


def image_of(case: PreparedCase) -> Float[Tensor, "C *S"]:
    """The prepared image as a tensor of its own; the array may be a read-only memory map."""
    return torch.from_numpy(np.array(case.image, dtype=np.float32))


def predict_native(predictor: ImagePredictor, case: PreparedCase) -> NativeLabel:
    """Class of each voxel of the whole image, in RAS+ order."""
    return native_prediction([predictor(image_of(case))], case.geometry)


def evaluate_case(predictor: ImagePredictor, case: PreparedCase, settings: EvaluationSettings) -> CaseResult:
    """Predict a case and count it on its own voxels.

    Args:
        predictor: Logits of a prepared image.
        case: With its native reference.
        settings: Whether lesions are matched, and by which rule.

    Raises:
        DataError: The case has no reference, or one of another shape than its image.
    """
    logits = predictor(image_of(case))
    whole = Stream(iter([logits]), logits.shape[0], tuple(logits.shape[1:]))
    return replace(evaluate_streams([whole], case, settings), logits=logits)


def evaluate_streams(
    members: Sequence[Stream], case: PreparedCase, settings: EvaluationSettings, *, average: Average = "logits"
) -> CaseResult:
    """`evaluate_case` of the mean of several networks, plane by plane: the same way from their logits to the numbers.

    Args:
        members: The logits of each network, at least one, as they come; each on the grid of its own plan.
        case: As the plan of any of them wants it.
        settings: Whether lesions are matched, and by which rule.
        average: What is averaged, the logits or softmax(logits), on the case's own voxels.

    Returns:
        Without logits, which were never there as a whole.

    Raises:
        DataError: The case has no reference, or one of another shape than its image.
        ValueError: The networks have different numbers of classes.
    """
    looked_at = [replace(member, blocks=_looked_at(member.blocks, case)) for member in members]
    prediction = native_labels(looked_at, case.geometry, average=average)
    rows = count_case(prediction, case, num_classes=members[0].num_classes, settings=settings)
    return CaseResult(case.case_id, case.group, rows, prediction)


def _looked_at(blocks: Iterator[Tensor], case: PreparedCase) -> Iterator[Tensor]:
    """The same blocks; the first that is not finite is told."""
    told = False
    for block in blocks:
        if not told and not bool(torch.isfinite(block).all()):
            logger.warning("%s: the network's output is not finite; its prediction counts as it is", case.case_id)
            told = True
        yield block


def count_case(
    prediction: NativeLabel, case: PreparedCase, *, num_classes: int, settings: EvaluationSettings
) -> tuple[ClassCounts, ...]:
    """Voxels (and lesions, where the score is of them) of each foreground class; ignored voxels left out.

    Raises:
        DataError: The case has no reference, or one of another shape than its image.
    """
    reference = case.native_label
    if reference is None:
        raise DataError("no reference to score against", where=case.case_id, mend="use predict for images alone")
    return count_masks(
        prediction,
        reference,
        case_id=case.case_id,
        group=case.group,
        num_classes=num_classes,
        spacing=case.geometry.native_spacing,
        settings=settings,
        instances=case.native_instances,
        annotated=case.annotated,
    )


def count_masks(
    prediction: NativeLabel,
    reference: Int[np.ndarray, "..."],
    *,
    case_id: str,
    group: str,
    num_classes: int,
    spacing: Spacing,
    settings: EvaluationSettings,
    instances: Int[np.ndarray, "..."] | None = None,
    annotated: frozenset[int] | None = None,
) -> tuple[ClassCounts, ...]:
    """`count_case` of two masks.

    Args:
        prediction: Class of each voxel.
        reference: Likewise; -1 where nobody annotated.
        case_id: Case.
        group: Group (person).
        num_classes: K, background included.
        spacing: Size of a voxel by axis, mm.
        settings: Whether lesions are matched, and by which rule.
        instances: Reference instance of each voxel, where the labels are instances.
        annotated: The foreground classes that were annotated in the case; None: all of them. Nothing is counted for
            the others. What was predicted as one of them counts for the rest like any voxel that is not theirs.

    Raises:
        DataError: The shapes differ.
    """
    if reference.shape != prediction.shape:
        why = f"image {prediction.shape}, label {reference.shape}"
        raise DataError("image and label differ in shape", where=case_id, why=why)
    counts = confusion(
        torch.from_numpy(prediction.astype(np.int64)),
        torch.from_numpy(np.array(reference, dtype=np.int64)),
        num_classes,
    )
    known = np.where(reference >= 0, prediction, 0)
    rows = []
    for index in range(1, num_classes):
        if annotated is not None and index not in annotated:
            rows.append(ClassCounts(case_id, group, index, 0, 0, 0, annotated=False))
            continue
        match: LesionMatch | None = None
        if settings.composite.level == "lesion":
            match = match_lesions(
                lesions(reference == index, settings.lesion, spacing=spacing, instances=instances),
                lesions(known == index, settings.lesion, spacing=spacing),
                min_iou=settings.lesion.min_iou,
            )
        tp, fp, fn = (int(count[index]) for count in (counts.tp, counts.fp, counts.fn))
        rows.append(ClassCounts(case_id, group, index, tp, fp, fn, match))
    return tuple(rows)

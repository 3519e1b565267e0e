"""Cases one after the other: predicted, counted, measured, written if masks are wanted, drawn if among the worst."""

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from segkit.data.cases import read_image
from segkit.data.readers import mask_name
from segkit.data.store import Store
from segkit.evaluation import CaseResult, ClassDetail, DetailSettings, detail_case, summarise
from segkit.evaluation.prediction_regions import Regions, regions_of_case
from segkit.runs.leftovers import discard, temporary_beside
from segkit.types import Case, Labels, PreparedCase
from segkit.workflows.evaluate_variants import Variant, row_folder
from segkit.workflows.masks import write_mask
from segkit.workflows.members import Members
from segkit.workflows.native_overlay import draw_native

Int16Array: TypeAlias = np.ndarray[Any, np.dtype[np.int16]]


@dataclass
class Counted:
    """What was counted and measured of the cases by one variant."""

    results: list[CaseResult] = field(default_factory=list)
    details: list[ClassDetail] = field(default_factory=list)


@dataclass(frozen=True)
class Worst:
    """One of the worst cases by the plain prediction, with the mask of its picture.

    Masks are held compressed, to a hundredth or so: ten of them, of large volumes, would be gigabytes.

    Args:
        case: Where its files are.
        score: Of the case; NaN where it is healthy.
        shape: Native voxels in RAS+ order.
        packed: Their classes.
    """

    case: Case
    score: float
    shape: tuple[int, ...]
    packed: bytes

    @classmethod
    def of(cls, case: Case, prediction: Int16Array, score: float) -> "Worst":
        """A case and its prediction."""
        return cls(case, score, prediction.shape, zlib.compress(prediction.tobytes(), level=1))

    @property
    def prediction(self) -> Int16Array:
        """Class of each native voxel."""
        return np.frombuffer(zlib.decompress(self.packed), dtype=np.int16).reshape(self.shape)

    def rank(self) -> tuple[float, str]:
        """Worst first; a healthy case, which has no score, last."""
        return rank_of(self.score, self.case)


def rank_of(score: float, case: Case) -> tuple[float, str]:
    """Where a case stands among the worst."""
    return (math.inf if math.isnan(score) else score, case.case_id)


@dataclass
class Scored:
    """What every variant came to, in their order, the worst cases, and regions where wanted."""

    counted: list[Counted]
    worst: list[Worst] = field(default_factory=list)
    regions: list[Regions] = field(default_factory=list)


def score_cases(
    members: Members,
    cases: Sequence[Case],
    store: Store,
    *,
    variants: Sequence[Variant],
    detail: DetailSettings | None,
    masks: Path | None,
    overlays: int,
    regions: bool = False,
) -> Scored:
    """Score case by case, with a line each; keeps the masks of the worst only.

    Args:
        members: What is scored.
        cases: With their labels.
        store: Of prepared cases.
        variants: Ways to predict each case, the plain one first.
        detail: What is measured beside the counts of voxels; None: nothing.
        masks: Folder of the evaluation, where masks are written; None: they are not.
        overlays: How many of the worst are kept.
        regions: Whether the regions of the plain predictions are kept, to fit rules on.

    Raises:
        DataError: A file that cannot be read, or that does not fit the model.
    """
    labels, settings = members.first.plan.labels, members.first.settings
    done = Scored([Counted() for _ in variants])
    for number, case in enumerate(cases, start=1):
        prepared = members.prepared(case, store)
        plain, scores = replace(members.result(prepared, settings), logits=None), []
        for variant, counted in zip(variants, done.counted, strict=True):
            result = variant.evaluate(prepared, plain)
            counted.results.append(result.without_arrays())
            counted.details += _measure(result, case, prepared[0], labels, detail)
            scores.append(summarise(counted.results[-1:], labels, variant.settings).score)
            if masks is not None and result.prediction is not None:
                path, like = mask_of(masks, variant.name, case), read_image(case)
                write_mask(path, result.prediction, geometry=prepared[0].geometry, labels=labels, like=like)
        if regions and plain.prediction is not None:
            done.regions.append(regions_of_case(plain.prediction, prepared[0], num_classes=labels.num_classes))
        others = zip(variants[1:], scores[1:], strict=True)
        more = "".join(f"  {variant.name} {score:.3f}" for variant, score in others)
        print(f"[{number}/{len(cases)}] {case.case_id}  score {scores[0]:.3f}{more}", flush=True)
        if overlays and (len(done.worst) < overlays or rank_of(scores[0], case) < done.worst[-1].rank()):
            assert plain.prediction is not None
            done.worst = sorted([*done.worst, Worst.of(case, plain.prediction, scores[0])], key=Worst.rank)[:overlays]
    return done


def mask_of(output: Path, row: str, case: Case) -> Path:
    """Where the predicted mask of a case lies, or would lie."""
    return row_folder(output, row) / "predictions" / mask_name(case.case_id, case.images[0])


def draw_worst(
    folder: Path, worst: Sequence[Worst], labels: Labels, *, label: str, prepared: Callable[[Case], PreparedCase]
) -> None:
    """Draw the worst cases on their own voxels; the folder of pictures is replaced as a whole.

    Args:
        folder: Of the pictures.
        worst: Worst first.
        labels: Class names.
        label: What the evaluation calls itself.
        prepared: Gives a case with its native reference.
    """
    if not worst:
        return
    staged = temporary_beside(folder)
    staged.mkdir(parents=True)
    for rank, one in enumerate(worst, start=1):
        draw_native(
            one.case,
            prepared(one.case),
            one.prediction,
            labels=labels,
            path=staged / f"{rank:02d}-{one.case.case_id}.png",
            title=f"{one.case.case_id}  score {one.score:.3f}  ({label})",
        )
    trash = temporary_beside(folder, suffix=".trash")
    if folder.exists():
        folder.rename(trash)
    staged.rename(folder)
    discard(trash)


def _measure(
    result: CaseResult, case: Case, prepared: PreparedCase, labels: Labels, detail: DetailSettings | None
) -> tuple[ClassDetail, ...]:
    if detail is None:
        return ()
    assert result.prediction is not None
    assert prepared.native_label is not None
    return detail_case(
        result.prediction,
        prepared.native_label,
        case_id=case.case_id,
        group=case.group,
        spacing=prepared.geometry.native_spacing,
        labels=labels,
        settings=detail,
        instances=prepared.native_instances,
        annotated=prepared.annotated,
    )

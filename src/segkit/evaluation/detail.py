"""What voxel counts do not tell of a case: how far surfaces lie apart, which lesions were found, how large they are.

Everything is measured on the image's own voxels, class by class, within the smallest box that holds reference and
prediction: no distance and no component depends on what lies outside it. Voxels that nobody annotated leave both
sides first.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from segkit.errors import DataError, UsageError
from segkit.metrics.component_dice import component_dice, mean_component_dice
from segkit.metrics.lesion import LesionSettings, lesions
from segkit.metrics.lesion_detection import PANOPTIC_IOU, Detection, LesionOverlaps, overlaps
from segkit.metrics.surface import Hausdorff, SurfaceDistances, SurfaceSettings, Weighting, surface_distances
from segkit.ops.bounding_box import boxes_of, union_box
from segkit.types import Labels, Spacing

_SIZE_EDGES = (0.0, 10.0, 100.0, 1000.0, 10000.0)


@dataclass(frozen=True)
class DetailSettings:
    """Conventions of what is measured beside the voxel counts; printed with the numbers.

    Args:
        tolerance_mm: Distance up to which a surface counts as right (NSD), for all classes.
        tolerances: The same for classes, by name, that need another one.
        hausdorff: See `SurfaceSettings`.
        weighting: See `SurfaceSettings`.
        lesion: When a lesion counts, and when it counts as found.
        size_edges: Lower limits of the sizes by which lesions are tabled, mm^3 (mm^2 for two axes).

    Raises:
        UsageError: A limit or a tolerance that makes no sense.
    """

    tolerance_mm: float = 1.0
    tolerances: Mapping[str, float] = field(default_factory=dict)
    hausdorff: Hausdorff = "directed"
    weighting: Weighting = "area"
    lesion: LesionSettings = field(default_factory=LesionSettings)
    size_edges: tuple[float, ...] = _SIZE_EDGES

    def __post_init__(self) -> None:
        for name, tolerance in {"all classes": self.tolerance_mm, **self.tolerances}.items():
            if not tolerance >= 0:
                raise UsageError("a tolerance is negative", where="surface.tolerance_mm", why=f"{name}: {tolerance}")
        if not self.size_edges or list(self.size_edges) != sorted(set(self.size_edges)) or self.size_edges[0] < 0:
            why = f"it is {list(self.size_edges)}"
            raise UsageError("the limits of the sizes must rise from 0 or more", where="lesion.size_edges", why=why)

    def surface(self, name: str) -> SurfaceSettings:
        """The conventions for one class."""
        tolerance = self.tolerances.get(name, self.tolerance_mm)
        return SurfaceSettings(tolerance_mm=tolerance, hausdorff=self.hausdorff, weighting=self.weighting)

    def require_known(self, labels: Labels) -> None:
        """Refuse tolerances for classes that there are not.

        Raises:
            UsageError: Names the classes there are.
        """
        unknown = sorted(set(self.tolerances) - set(labels.foreground))
        if unknown:
            raise UsageError(
                f"no class {', '.join(unknown)}",
                where="surface.tolerances",
                mend=f"use {', '.join(labels.foreground)}",
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self) | {"size_edges": list(self.size_edges), "tolerances": dict(self.tolerances)}


@dataclass(frozen=True)
class ClassDetail:
    """One class in one case.

    Args:
        case_id: Case.
        group: Group (person).
        class_index: Class, 1 or more.
        surface: Distances, in mm (pixels where the files know no mm).
        diagonal: Of the whole image, in mm: no distance in it is longer.
        detection: Lesions, matched as the settings say.
        panoptic: The same lesions matched at an IoU of one half.
        component_dice: Mean Dice of the reference lesions within their cells; NaN without one.
        voxel_size: mm^3 of a voxel (mm^2 for two axes; 1 where the files know no mm).
        reference_voxels: Size of the reference.
        prediction_voxels: Size of the prediction.
        annotated_voxels: Voxels that were counted at all.
        ceiling: What the reference's own instances score once reduced to one class and split into components again,
            matched as the settings say; None where the labels are no instances.
    """

    case_id: str
    group: str
    class_index: int
    surface: SurfaceDistances
    diagonal: float
    detection: Detection
    panoptic: Detection
    component_dice: float
    voxel_size: float
    reference_voxels: int
    prediction_voxels: int
    annotated_voxels: int
    ceiling: Detection | None = None

    @property
    def lesions(self) -> LesionOverlaps:
        """All lesions and which of them share voxels."""
        return self.detection.lesions

    @property
    def volume_similarity(self) -> float:
        """1 - |V_P - V_R| / (V_P + V_R), 0 where nothing was predicted; NaN without a reference.

        Not the error relative to V_R: of a structure that came out three times too large, that is twice what it is
        of one that was missed. Reference: Taha and Hanbury, BMC Medical Imaging 2015.
        """
        if not self.reference_voxels:
            return math.nan
        both = self.reference_voxels + self.prediction_voxels
        return 1 - abs(self.prediction_voxels - self.reference_voxels) / both

    @property
    def bounded(self) -> tuple[float, float]:
        """HD95 and ASSD with the diagonal where one side is empty: a number that silence cannot improve."""
        return min(self.surface.hd, self.diagonal), min(self.surface.assd, self.diagonal)


def detail_case(
    prediction: Int[np.ndarray, "*S"],
    reference: Int[np.ndarray, "..."],
    *,
    case_id: str,
    group: str,
    spacing: Spacing,
    labels: Labels,
    settings: DetailSettings,
    instances: Int[np.ndarray, "..."] | None = None,
    predicted_instances: Int[np.ndarray, "..."] | None = None,
    annotated: frozenset[int] | None = None,
) -> tuple[ClassDetail, ...]:
    """Measure every foreground class of one case that was annotated there.

    Args:
        prediction: Class of each voxel.
        reference: Likewise; -1 where nobody annotated.
        case_id: Case.
        group: Group (person).
        spacing: Size of a voxel by axis, mm.
        labels: Class names.
        settings: Conventions.
        instances: Reference instance of each voxel, where the labels are instances.
        predicted_instances: Likewise; None: the components of the prediction.
        annotated: The foreground classes that were annotated in the case; None: all of them. The others have no row.

    Raises:
        DataError: The shapes differ.
    """
    if reference.shape != prediction.shape:
        why = f"image {prediction.shape}, label {reference.shape}"
        raise DataError("image and label differ in shape", where=case_id, why=why)
    known = reference >= 0
    prediction = np.where(known, prediction, 0)
    in_reference, in_prediction = boxes_of(np.where(known, reference, 0)), boxes_of(prediction)
    counted = int(np.count_nonzero(known))
    diagonal = math.hypot(*(n * s for n, s in zip(reference.shape, spacing, strict=True)))
    found = []
    for index, name in enumerate(labels.foreground, start=1):
        if annotated is not None and index not in annotated:
            continue
        box = union_box(in_reference.get(index), in_prediction.get(index))
        # Of a class that is on neither side a single voxel is looked at: it is measured like any other.
        box = box or (slice(0, 1),) * reference.ndim
        truth, guess = reference[box] == index, prediction[box] == index
        found.append(
            ClassDetail(
                case_id=case_id,
                group=group,
                class_index=index,
                surface=surface_distances(truth, guess, spacing=spacing, settings=settings.surface(name)),
                diagonal=diagonal,
                voxel_size=math.prod(spacing),
                reference_voxels=int(np.count_nonzero(truth)),
                prediction_voxels=int(np.count_nonzero(guess)),
                annotated_voxels=counted,
                **_lesion_wise(
                    truth,
                    guess,
                    spacing=spacing,
                    settings=settings.lesion,
                    instances=None if instances is None else instances[box],
                    predicted=None if predicted_instances is None else predicted_instances[box],
                ),
            )
        )
    return tuple(found)


def _lesion_wise(
    truth: Bool[np.ndarray, "*S"],
    guess: Bool[np.ndarray, "..."],
    *,
    spacing: Spacing,
    settings: LesionSettings,
    instances: Int[np.ndarray, "..."] | None,
    predicted: Int[np.ndarray, "..."] | None,
) -> dict[str, Any]:
    """The fields of `ClassDetail` that are made of lesions."""
    ids = lesions(truth, settings, spacing=spacing, instances=instances)
    guessed = lesions(guess, settings, spacing=spacing, instances=predicted)
    table = overlaps(ids, guessed)
    ceiling = None
    if instances is not None:
        ceiling = overlaps(ids, lesions(truth, settings, spacing=spacing)).matched(settings.min_iou)
    return {
        "detection": table.matched(settings.min_iou),
        "panoptic": table.matched(PANOPTIC_IOU),
        "component_dice": mean_component_dice(component_dice(ids, guessed > 0, spacing=spacing)),
        "ceiling": ceiling,
    }

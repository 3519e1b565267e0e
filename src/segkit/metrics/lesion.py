"""Lesions found, missed and invented.

The rule, printed with every number that comes of it: components by full connectivity unless the labels carry
instance ids; components smaller than `min_voxels` or `min_mm3` ignored on both sides; a reference and a predicted
lesion match one to one, the largest overlap first, where their IoU is at least `min_iou` (0: any shared voxel).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int

from segkit.metrics.lesion_detection import overlaps
from segkit.ops.connected_components import connected_components, voxels_of_volume
from segkit.types import Spacing


@dataclass(frozen=True)
class LesionSettings:
    """What counts as found.

    Args:
        min_iou: A pair below this IoU does not match; in [0, 1], 0 for any shared voxel.
        min_voxels: Smaller components are ignored in reference and prediction alike.
        connectivity: "full" joins voxels that share a corner (26 or 8 neighbours), "faces" a face (6 or 4).
        min_mm3: Likewise in mm^3 (mm^2 for two axes, pixels where the files know no mm).
    """

    min_iou: float = 0.1
    min_voxels: int = 1
    connectivity: Literal["full", "faces"] = "full"
    min_mm3: float = 0.0

    def rule(self, size_unit: str = "mm^3") -> str:
        """The matching rule in words.

        Args:
            size_unit: Of `min_mm3`, see `segkit.ops.connected_components.size_unit`.
        """
        size = f"at least {self.min_voxels} voxels" + (f" and {self.min_mm3:g} {size_unit}" if self.min_mm3 else "")
        overlap = f"IoU >= {self.min_iou:g}" if self.min_iou else "any shared voxel"
        return (
            f"components by {self.connectivity} connectivity (instance ids where the labels have them), {size}; "
            f"one-to-one, largest overlap first, {overlap}"
        )

    def smallest(self, spacing: Spacing | None) -> int:
        """Voxels of the smallest lesion that counts.

        Args:
            spacing: Size of a voxel by axis; needed where `min_mm3` is set.

        Raises:
            ValueError: `min_mm3` is set and there is no spacing.
        """
        if not self.min_mm3:
            return self.min_voxels
        if spacing is None:
            raise ValueError("lesions have a smallest volume, but voxels have no size: give the spacing")
        return max(self.min_voxels, voxels_of_volume(self.min_mm3, spacing))


@dataclass(frozen=True)
class LesionMatch:
    """Lesions of one class in one case.

    Args:
        tp: Matched pairs.
        fp: Predicted lesions without a partner.
        fn: Reference lesions without a partner.
        iou_sum: Sum of the IoU of the matched pairs; over tp + fn it is the mean over reference lesions.
    """

    tp: int
    fp: int
    fn: int
    iou_sum: float


def match_lesions(
    reference: Int[np.ndarray, "*S"], prediction: Int[np.ndarray, "*S"], *, min_iou: float = 0.1
) -> LesionMatch:
    """Match lesions one to one, the largest overlap first, where IoU >= `min_iou`.

    Args:
        reference: Lesion id of each voxel, 0 outside.
        prediction: Likewise.
        min_iou: A pair below this IoU does not match; 0 for any shared voxel.

    Raises:
        ValueError: `min_iou` is not in [0, 1].
    """
    found = overlaps(reference, prediction).matched(min_iou)
    return LesionMatch(
        tp=found.tp,
        fp=found.fp,
        fn=found.fn,
        iou_sum=float(np.sum([pair.iou for pair in found.pairs], dtype=np.float64)),
    )


def lesions(
    mask: Bool[np.ndarray, "*S"],
    settings: LesionSettings,
    *,
    spacing: Spacing | None = None,
    instances: Int[np.ndarray, "*S"] | None = None,
) -> Int[np.ndarray, "*S"]:
    """Lesion ids of a mask: its components, or the given instance ids inside it; small ones removed.

    Args:
        mask: (*S).
        settings: What counts as a lesion.
        spacing: Size of a voxel by axis; needed where `settings.min_mm3` is set.
        instances: Instance id of each voxel; where the labels are instances.
    """
    if instances is None:
        ids, _ = connected_components(mask, connectivity=settings.connectivity)
    else:
        ids = np.where(mask, instances, 0)
    smallest = settings.smallest(spacing)
    if smallest > 1:
        small = [lesion for lesion, size in _sizes(ids).items() if size < smallest]
        ids = np.where(np.isin(ids, small), 0, ids)
    return ids


def _sizes(ids: Int[np.ndarray, "*S"]) -> dict[int, int]:
    """Voxels of each id, the background left out."""
    names, sizes = np.unique(ids[ids > 0], return_counts=True)
    return {int(name): int(size) for name, size in zip(names, sizes, strict=True)}

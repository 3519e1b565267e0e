"""Lesions found, missed and invented, one by one: what detection, sizes and panoptic quality are made of.

Every pair of a reference and a predicted lesion that share a voxel is tabled once; a matching of that table is one to
one, the largest overlap first, of the pairs with IoU >= `min_iou` (0: any shared voxel). From the same table:

    split      a reference lesion that shares voxels with two predicted lesions or more
    merge      a predicted lesion that shares voxels with two reference lesions or more
    F1 = 2 TP / (2 TP + FP + FN),    SQ = mean IoU of the matched pairs,    PQ = SQ x F1, matched at IoU >= 0.5

Above an IoU of one half a lesion has at most one partner, so that no order matters there.

Reference: Kirillov et al., Panoptic segmentation, CVPR 2019; Maier-Hein, Reinke et al., Metrics reloaded, Nature
Methods 2024.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int

PANOPTIC_IOU = 0.5
"""IoU from which a pair counts for the panoptic quality."""
_SEVERAL = 1.5


def are_lesions(pieces: int, cases: int) -> bool:
    """Whether the pieces of a class are worth counting one by one: an organ has one a case, lesions are several.

    Args:
        pieces: Of the references of all cases together.
        cases: Cases with any.
    """
    return pieces >= _SEVERAL * max(cases, 1)


@dataclass(frozen=True)
class Pair:
    """A reference and a predicted lesion that share voxels.

    Args:
        reference: Index in `LesionOverlaps.reference_voxels`.
        prediction: Index in `LesionOverlaps.prediction_voxels`.
        shared: Voxels of both.
        iou: Shared voxels over those of either.
    """

    reference: int
    prediction: int
    shared: int
    iou: float


@dataclass(frozen=True)
class LesionOverlaps:
    """All lesions of one class in one case, and which of them share voxels.

    Args:
        reference_voxels: Size of each reference lesion, by rising id.
        prediction_voxels: Likewise.
        pairs: Largest overlap first; equal ones by IoU, then by ids.
    """

    reference_voxels: tuple[int, ...]
    prediction_voxels: tuple[int, ...]
    pairs: tuple[Pair, ...]

    @property
    def splits(self) -> int:
        """Reference lesions that share voxels with two predicted ones or more."""
        return _several(pair.reference for pair in self.pairs)

    @property
    def merges(self) -> int:
        """Predicted lesions that share voxels with two reference ones or more."""
        return _several(pair.prediction for pair in self.pairs)

    def matched(self, min_iou: float) -> "Detection":
        """One-to-one matching of the pairs with IoU >= `min_iou`; 0 for any shared voxel.

        Raises:
            ValueError: `min_iou` is not in [0, 1].
        """
        if not 0 <= min_iou <= 1:
            raise ValueError(f"min_iou is {min_iou}, but must lie in [0, 1]")
        chosen: list[Pair] = []
        references: set[int] = set()
        predictions: set[int] = set()
        for pair in self.pairs:
            if pair.iou >= min_iou and pair.reference not in references and pair.prediction not in predictions:
                chosen.append(pair)
                references.add(pair.reference)
                predictions.add(pair.prediction)
        return Detection(self, tuple(chosen))


@dataclass(frozen=True)
class Detection:
    """A matching of the lesions of one class in one case.

    Args:
        lesions: What was matched.
        pairs: Those that belong together.
    """

    lesions: LesionOverlaps
    pairs: tuple[Pair, ...]

    @property
    def tp(self) -> int:
        """Lesions found."""
        return len(self.pairs)

    @property
    def fn(self) -> int:
        """Lesions missed."""
        return len(self.lesions.reference_voxels) - self.tp

    @property
    def fp(self) -> int:
        """Lesions invented."""
        return len(self.lesions.prediction_voxels) - self.tp

    @property
    def segmentation_quality(self) -> float:
        """SQ: mean IoU of the pairs; NaN without one."""
        return math.fsum(pair.iou for pair in self.pairs) / self.tp if self.pairs else math.nan

    @property
    def recognition_quality(self) -> float:
        """RQ: F1 of the lesions; NaN where the reference has none, 0 where nothing was found."""
        return 2 * self.tp / (2 * self.tp + self.fp + self.fn) if self.lesions.reference_voxels else math.nan

    @property
    def recall(self) -> float:
        """TP / (TP + FN); NaN where the reference has no lesion."""
        return self.tp / (self.tp + self.fn) if self.lesions.reference_voxels else math.nan

    @property
    def precision(self) -> float:
        """TP / (TP + FP); 0 where nothing was predicted; NaN where the reference has no lesion."""
        return self.tp / max(self.tp + self.fp, 1) if self.lesions.reference_voxels else math.nan

    @property
    def panoptic_quality(self) -> float:
        """PQ = sum of IoU / (TP + FP / 2 + FN / 2) = SQ x RQ; as `recognition_quality` where undefined."""
        return self.segmentation_quality * self.recognition_quality if self.pairs else self.recognition_quality

    @cached_property
    def found(self) -> tuple[bool, ...]:
        """Whether each reference lesion has a partner."""
        partners = {pair.reference for pair in self.pairs}
        return tuple(index in partners for index in range(len(self.lesions.reference_voxels)))

    @cached_property
    def true(self) -> tuple[bool, ...]:
        """Whether each predicted lesion has a partner."""
        partners = {pair.prediction for pair in self.pairs}
        return tuple(index in partners for index in range(len(self.lesions.prediction_voxels)))

    @property
    def invented_voxels(self) -> int:
        """Size of all predicted lesions without a partner."""
        return sum(size for size, true in zip(self.lesions.prediction_voxels, self.true, strict=True) if not true)


def overlaps(reference: Int[np.ndarray, "*S"], prediction: Int[np.ndarray, "..."]) -> LesionOverlaps:
    """Table the lesions of two masks and their shared voxels.

    Args:
        reference: Lesion id of each voxel, 0 outside.
        prediction: Likewise.

    Raises:
        ValueError: Masks of different shape.
    """
    if reference.shape != prediction.shape:
        raise ValueError(f"masks of shape {reference.shape} and {prediction.shape}")
    ids_r, sizes_r = np.unique(reference[reference > 0], return_counts=True)
    ids_p, sizes_p = np.unique(prediction[prediction > 0], return_counts=True)
    both = (reference > 0) & (prediction > 0)
    # One number a pair: unique over rows would sort rows, which is slower by an order.
    keys = np.searchsorted(ids_r, reference[both]).astype(np.int64) * max(len(ids_p), 1)
    keys += np.searchsorted(ids_p, prediction[both])
    found, shared = np.unique(keys, return_counts=True)
    pairs = [
        _pair(*divmod(int(key), len(ids_p)), int(voxels), sizes_r, sizes_p)
        for key, voxels in zip(found, shared, strict=True)
    ]
    pairs.sort(key=lambda pair: (-pair.shared, -pair.iou, pair.reference, pair.prediction))
    return LesionOverlaps(tuple(sizes_r.tolist()), tuple(sizes_p.tolist()), tuple(pairs))


def share_by_size(sizes: Sequence[float], hits: Sequence[bool], edges: Sequence[float]) -> tuple[tuple[int, int], ...]:
    """How many of the lesions of each size are hits: recall by reference size, true ones by predicted size.

    There is no F1 by size: a reference lesion and its partner may lie in different bins.

    Args:
        sizes: Of each lesion, in any unit.
        hits: Whether it has a partner.
        edges: Rising lower limits of the bins; the last is open.

    Returns:
        Hits and lesions of each bin, those below the first edge left out.
    """
    bins = np.searchsorted(np.asarray(edges, dtype=np.float64), np.asarray(sizes, dtype=np.float64), side="right") - 1
    hit = np.asarray(hits, dtype=bool)
    return tuple((int((hit & (bins == b)).sum()), int((bins == b).sum())) for b in range(len(edges)))


def _pair(
    reference: int, prediction: int, shared: int, sizes_r: Int[np.ndarray, " R"], sizes_p: Int[np.ndarray, " P"]
) -> Pair:
    return Pair(reference, prediction, shared, shared / (int(sizes_r[reference]) + int(sizes_p[prediction]) - shared))


def _several(indices: Iterable[int]) -> int:
    """How many different indices come more than once."""
    _, counts = np.unique(np.fromiter(indices, dtype=np.int64), return_counts=True)
    return int((counts > 1).sum())

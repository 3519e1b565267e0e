"""The numbers of a set of cases beside the voxel counts: distances of surfaces, and lesions one by one.

Nothing is dropped. A structure that one side lacks has no finite distance: it is counted as missed or invented, and
means are given twice, with the image's diagonal put in its place, which a model cannot improve by finding less, and
over the pairs where both sides are there, which it can: the second never stands alone.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segkit.evaluation.detail import ClassDetail, DetailSettings
from segkit.metrics.lesion_detection import PANOPTIC_IOU, Detection, are_lesions, share_by_size
from segkit.metrics.overlap import overlap
from segkit.metrics.surface import length_text
from segkit.metrics.uncertainty import Interval, finite_or_none, mean_interval
from segkit.ops.connected_components import size_unit
from segkit.types import Labels

LESION_METRICS = ("f1", "recall", "precision", "panoptic_quality", "component_dice")

RULES = {
    "surface": "both sides empty: not applicable; one side empty: missed or invented, NSD 0, and the image's diagonal "
    "for HD95 and ASSD; `where_both` is the mean over the cases where both sides are there",
    "lesions": "by case, over the cases with a lesion in the reference, where nothing predicted is 0; pooled: counts "
    "of all cases summed first; sizes in {size_unit}, reference lesions for recall, predicted ones for false lesions",
}


@dataclass(frozen=True)
class SurfaceSummary:
    """Distances of one class over all cases.

    Args:
        name: Class name.
        tolerance_mm: Of the NSD.
        hd95: With the image's diagonal where one side is empty, mm.
        assd: Likewise.
        nsd: 0 where one side is empty.
        hd95_where_both: Over the cases where both sides are there.
        assd_where_both: Likewise.
        missed: Cases in which the prediction is empty and the reference is not.
        invented: Cases in which the reference is empty and the prediction is not.
    """

    name: str
    tolerance_mm: float
    hd95: Interval
    assd: Interval
    nsd: Interval
    hd95_where_both: Interval
    assd_where_both: Interval
    missed: int
    invented: int

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "hd95": self.hd95.to_dict() | {"where_both": self.hd95_where_both.to_dict()},
            "assd": self.assd.to_dict() | {"where_both": self.assd_where_both.to_dict()},
            "nsd": self.nsd.to_dict() | {"tolerance_mm": self.tolerance_mm},
            "missed": self.missed,
            "invented": self.invented,
        }


@dataclass(frozen=True)
class VolumeSummary:
    """How large one class came out.

    Args:
        name: Class name.
        similarity: See `ClassDetail.volume_similarity`, over the cases that have the class.
        bias: Predicted less reference volume, mm^3, over the cases where either is there: its sign tells whether
            the class comes out too large. It is no measure of quality: errors of both signs cancel.
    """

    name: str
    similarity: Interval
    bias: Interval

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"similarity": self.similarity.to_dict(), "bias_mm3": self.bias.to_dict()}


@dataclass(frozen=True)
class LesionSummary:
    """Lesions of one class over all cases.

    Args:
        name: Class name.
        by_case: `LESION_METRICS`, mean over cases.
        pooled: f1, recall and precision of the counts of all cases together.
        counts: reference, predicted, found, missed, invented, splits, merges: lesions of all cases.
        invented_size: Of all false lesions together, mm^3.
        recall_by_size: (lower limit in mm^3, found, lesions) by the size of the reference lesion.
        false_by_size: (lower limit in mm^3, false, lesions) by the size of the predicted lesion.
        ceiling: f1 and panoptic_quality, by case, of the reference against itself, reduced to one class and split
            again; None where the labels are no instances.
    """

    name: str
    by_case: Mapping[str, Interval]
    pooled: Mapping[str, float]
    counts: Mapping[str, int]
    invented_size: float
    recall_by_size: tuple[tuple[float, int, int], ...]
    false_by_size: tuple[tuple[float, int, int], ...]
    ceiling: Mapping[str, Interval] | None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        record: dict[str, Any] = {
            **{metric: interval.to_dict() for metric, interval in self.by_case.items()},
            "pooled": {metric: finite_or_none(value) for metric, value in self.pooled.items()},
            "counts": dict(self.counts),
            "invented_mm3": self.invented_size,
            "recall_by_size": [_bin(edge, "found", part, whole) for edge, part, whole in self.recall_by_size],
            "false_by_size": [_bin(edge, "false", part, whole) for edge, part, whole in self.false_by_size],
        }
        if self.ceiling is not None:
            record["ceiling"] = {metric: interval.to_dict() for metric, interval in self.ceiling.items()}
        return record


@dataclass(frozen=True)
class DetailSummary:
    """A set of cases.

    Args:
        surfaces: One a foreground class.
        volumes: Likewise.
        lesions: Likewise.
        settings: Conventions.
        unit: "mm" or "pixel".
    """

    surfaces: tuple[SurfaceSummary, ...]
    volumes: tuple[VolumeSummary, ...]
    lesions: tuple[LesionSummary, ...]
    settings: DetailSettings
    unit: str
    dimensions: int

    @property
    def size_unit(self) -> str:
        """Of sizes of lesions: mm^3, mm^2 or pixels."""
        return size_unit(self.unit, self.dimensions)

    @property
    def rules(self) -> dict[str, str]:
        """The rules in words, by topic: what two evaluations must share to be compared."""
        tolerances = (f"{one.name} {length_text(one.tolerance_mm, self.unit)}" for one in self.surfaces)
        return {topic: rule.format(size_unit=self.size_unit) for topic, rule in RULES.items()} | {
            "surface_elements": self.settings.surface("").rule(self.unit),
            "surface_tolerances": ", ".join(tolerances),
            "lesion_matching": self.settings.lesion.rule(self.size_unit),
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON form; what is undefined is null."""
        return {
            "surface": {one.name: one.to_dict() for one in self.surfaces},
            "volume": {one.name: one.to_dict() for one in self.volumes},
            "lesions": {one.name: one.to_dict() for one in self.lesions},
            "unit": self.unit,
            "size_unit": self.size_unit,
            "detail_settings": self.settings.to_dict(),
        }

    def table(self) -> Iterator[str]:
        """Lines for a terminal: distances by class, then lesions of the classes that have several a case."""
        width = max(len("class"), *(len(one.name) for one in self.surfaces))
        yield f"{'class':<{width}}  {'HD95 ' + self.unit:<24}{'ASSD ' + self.unit:<24}{'NSD':<22}missed  invented  n"
        for one in self.surfaces:
            cells = f"{_cell(one.hd95):<24}{_cell(one.assd):<24}{_cell(one.nsd):<22}"
            yield f"{one.name:<{width}}  {cells}{one.missed:<6}  {one.invented:<8}  {one.nsd.n}"
        for one in self.surfaces:
            if one.missed or one.invented:
                both = f"{_cell(one.hd95_where_both)} {self.unit}, n={one.hd95_where_both.n}"
                yield f"{one.name}: the diagonal counts where one side is empty; HD95 where both are there: {both}"
        within = {one.name: length_text(one.tolerance_mm, self.unit) for one in self.surfaces}
        alike = len(set(within.values())) == 1
        told = next(iter(within.values())) if alike else ", ".join(f"{name} {text}" for name, text in within.items())
        yield f"NSD within {told}; elements of surfaces by {self.settings.weighting}, HD95 {self.settings.hausdorff}"
        several = [one for one in self.lesions if are_lesions(one.counts["reference"], one.by_case["f1"].n)]
        if several:
            yield from self._lesion_table(several)

    def _lesion_table(self, several: Sequence[LesionSummary]) -> Iterator[str]:
        width = max(len("lesions of"), *(len(one.name) for one in several))
        heading = "".join(f"{name:<22}" for name in ("F1", "recall", "precision", "PQ"))
        yield f"{'lesions of':<{width}}  {heading}{'found':<14}false  n"
        for one in several:
            cells = "".join(f"{_cell(one.by_case[metric]):<22}" for metric in LESION_METRICS[:4])
            found = f"{one.counts['found']} of {one.counts['reference']}"
            yield f"{one.name:<{width}}  {cells}{found:<14}{one.counts['invented']:<5}  {one.by_case['f1'].n}"
        yield self.settings.lesion.rule(self.size_unit)


def summarise_details(
    details: Sequence[ClassDetail], labels: Labels, settings: DetailSettings, *, unit: str, dimensions: int
) -> DetailSummary:
    """Numbers of a set of cases.

    Args:
        details: One a case and foreground class, in any order.
        labels: Class names.
        settings: Those the cases were measured with.
        unit: Of the distances.
        dimensions: Axes of the masks.
    """
    ordered = sorted(details, key=lambda one: one.case_id)
    by_class = [[one for one in ordered if one.class_index == k] for k in range(1, labels.num_classes)]
    named = list(zip(labels.foreground, by_class, strict=True))
    return DetailSummary(
        surfaces=tuple(_surface_summary(name, rows, settings) for name, rows in named),
        volumes=tuple(_volume_summary(name, rows) for name, rows in named),
        lesions=tuple(_lesion_summary(name, rows, settings) for name, rows in named),
        settings=settings,
        unit=unit,
        dimensions=dimensions,
    )


def _surface_summary(name: str, rows: Sequence[ClassDetail], settings: DetailSettings) -> SurfaceSummary:
    def mean(value: Callable[[ClassDetail], float], bounds: tuple[float, float] | None = None) -> Interval:
        values = [value(row) for row in rows]
        finite = [v if math.isfinite(v) else math.nan for v in values]
        return mean_interval(finite, [row.group for row in rows], bounds=bounds)

    positive = (0.0, math.inf)
    return SurfaceSummary(
        name=name,
        tolerance_mm=settings.surface(name).tolerance_mm,
        hd95=mean(lambda row: row.bounded[0], positive),
        assd=mean(lambda row: row.bounded[1], positive),
        nsd=mean(lambda row: row.surface.nsd, (0.0, 1.0)),
        hd95_where_both=mean(lambda row: row.surface.hd, positive),
        assd_where_both=mean(lambda row: row.surface.assd, positive),
        missed=sum(row.surface.found == "missed" for row in rows),
        invented=sum(row.surface.found == "invented" for row in rows),
    )


def _volume_summary(name: str, rows: Sequence[ClassDetail]) -> VolumeSummary:
    groups = [row.group for row in rows]
    biases = [
        (row.prediction_voxels - row.reference_voxels) * row.voxel_size
        if row.prediction_voxels or row.reference_voxels
        else math.nan
        for row in rows
    ]
    return VolumeSummary(
        name=name,
        similarity=mean_interval([row.volume_similarity for row in rows], groups, bounds=(0.0, 1.0)),
        bias=mean_interval(biases, groups),
    )


def _lesion_summary(name: str, rows: Sequence[ClassDetail], settings: DetailSettings) -> LesionSummary:
    groups = [row.group for row in rows]
    by_case: Mapping[str, list[float]] = {
        "f1": [row.detection.recognition_quality for row in rows],
        "recall": [row.detection.recall for row in rows],
        "precision": [row.detection.precision for row in rows],
        "panoptic_quality": [row.panoptic.panoptic_quality for row in rows],
        "component_dice": [row.component_dice for row in rows],
    }
    tp, fp, fn = (sum(getattr(row.detection, count) for row in rows) for count in ("tp", "fp", "fn"))
    pooled = overlap(tp, fp, fn)
    ceilings = [row.ceiling for row in rows if row.ceiling is not None]
    return LesionSummary(
        name=name,
        by_case={metric: mean_interval(by_case[metric], groups, bounds=(0.0, 1.0)) for metric in LESION_METRICS},
        pooled={"f1": float(pooled.dice), "recall": float(pooled.recall), "precision": float(pooled.precision)},
        counts={
            "reference": tp + fn,
            "predicted": tp + fp,
            "found": tp,
            "missed": fn,
            "invented": fp,
            "splits": sum(row.lesions.splits for row in rows),
            "merges": sum(row.lesions.merges for row in rows),
        },
        invented_size=math.fsum(row.detection.invented_voxels * row.voxel_size for row in rows),
        recall_by_size=_by_size(rows, settings.size_edges, side="reference"),
        false_by_size=_by_size(rows, settings.size_edges, side="prediction"),
        ceiling=_ceiling(ceilings, [row.group for row in rows if row.ceiling is not None]),
    )


def _ceiling(ceilings: Sequence[Detection], groups: Sequence[str]) -> Mapping[str, Interval] | None:
    if not ceilings:
        return None
    f1 = [one.recognition_quality for one in ceilings]
    panoptic = [one.lesions.matched(PANOPTIC_IOU).panoptic_quality for one in ceilings]
    return {
        "f1": mean_interval(f1, groups, bounds=(0.0, 1.0)),
        "panoptic_quality": mean_interval(panoptic, groups, bounds=(0.0, 1.0)),
    }


def _by_size(rows: Sequence[ClassDetail], edges: Sequence[float], *, side: str) -> tuple[tuple[float, int, int], ...]:
    """Lower limit, hits and lesions of each bin: found ones by reference size, false ones by predicted size."""
    sizes: list[float] = []
    hits: list[bool] = []
    for row in rows:
        if side == "reference":
            sizes += [voxels * row.voxel_size for voxels in row.lesions.reference_voxels]
            hits += row.detection.found
        else:
            sizes += [voxels * row.voxel_size for voxels in row.lesions.prediction_voxels]
            hits += [not true for true in row.detection.true]
    counted = share_by_size(sizes, hits, edges)
    return tuple((float(edge), *pair) for edge, pair in zip(edges, counted, strict=True))


def _bin(edge: float, name: str, part: int, whole: int) -> dict[str, float | int]:
    return {"from_mm3": edge, name: part, "lesions": whole}


def _cell(interval: Interval) -> str:
    if not interval.n or np.isnan(interval.mean):
        return "n/a"
    return f"{interval.mean:.3f}" + (f" [{interval.low:.3f}, {interval.high:.3f}]" if interval.published else "")

"""A predicted label map as a graph of its regions: what any post-processing would come to, without its voxels.

A region is a component of one class, or of the background, joined by faces. Of each are kept its class, its voxels
and how many of them lie in each class of the reference; of each two, whether they share a face or a corner. A component
of a class, a component of all classes and a hole are groups of regions that touch, so that `classes_after` finds the
class that `PostProcessing.apply` gives to each region, and the counts of true and false voxels follow by sums.

A case takes about 8 (K + 4) bytes a region and 17 a border; the regions of many cases are one table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.sparse.csgraph import connected_components as groups_of_graph

from segkit.errors import DataError
from segkit.inference.postprocessing import BETWEEN, PostProcessing
from segkit.ops.bounding_box import Slices, boxes_of, union_box
from segkit.ops.connected_components import Connectivity, connected_components, voxels_of_volume
from segkit.types import PreparedCase, Spacing


@dataclass(frozen=True)
class CaseFacts:
    """Whose regions they are.

    Args:
        case_id: Case.
        group: Group (person).
        content_hash: sha256 over the contents of its image files.
        spacing: Size of a voxel by axis, mm.
        annotated: Foreground classes that were annotated, by index; None: all of them. The others are not applicable.
    """

    case_id: str
    group: str
    content_hash: str
    spacing: Spacing
    annotated: frozenset[int] | None = None


@dataclass(frozen=True)
class Regions:
    """Regions of the predictions of N cases: R regions with E borders, K classes, background included.

    What lies outside the smallest box of all foreground, one voxel wider, is no region: it is background whatever is
    done.

    Args:
        cases: One a case.
        reference: Annotated voxels of each class in the whole reference of each case.
        case: Place of each region's case in `cases`.
        label: Predicted class of each region.
        voxels: Size of each region.
        counts: Its voxels by class of the reference; those that nobody annotated are in none.
        first: Place of its first voxel in scan order, among the voxels of the box.
        outside: Whether it reaches the border of the image, or what lies outside the box.
        borders: Two regions that touch, the lower one first.
        faces: Whether they share a face; else a corner or an edge only.
    """

    cases: tuple[CaseFacts, ...]
    reference: Int[np.ndarray, "N K"]
    case: Int[np.ndarray, " R"]
    label: Int[np.ndarray, " R"]
    voxels: Int[np.ndarray, " R"]
    counts: Int[np.ndarray, "R K"]
    first: Int[np.ndarray, " R"]
    outside: Bool[np.ndarray, " R"]
    borders: Int[np.ndarray, "E 2"]
    faces: Bool[np.ndarray, " E"]

    @property
    def num_classes(self) -> int:
        """K, background included."""
        return int(self.reference.shape[1])

    def joined_by(self, connectivity: Connectivity) -> Int[np.ndarray, "B 2"]:
        """The borders across which voxels are joined."""
        return self.borders if connectivity == "full" else self.borders[self.faces]

    @cached_property
    def components(self) -> Mapping[Connectivity, Int[np.ndarray, " R"]]:
        """For each region the number of the component of its class that it belongs to."""
        found: dict[Connectivity, Int[np.ndarray, " R"]] = {}
        for connectivity in BETWEEN:
            pairs = self.joined_by(connectivity)
            alike = self.label[pairs[:, 0]] == self.label[pairs[:, 1]]
            found[connectivity] = _grouped(len(self.label), pairs[alike])
        return found

    def confusion(self, label: Int[np.ndarray, " R"]) -> tuple[Float[np.ndarray, "N K"], ...]:
        """True positives, false positives and false negatives by case and class, were this the regions' class."""
        cells = self.case * self.num_classes + label
        size = len(self.cases) * self.num_classes
        right = self.counts[np.arange(len(label)), label]
        shape = self.reference.shape
        tp = np.bincount(cells, weights=right, minlength=size).reshape(shape)
        predicted = np.bincount(cells, weights=self.counts.sum(axis=1), minlength=size).reshape(shape)
        return tp, predicted - tp, self.reference - tp


def regions_of_case(prediction: Int[np.ndarray, "..."], case: PreparedCase, *, num_classes: int) -> Regions:
    """`regions_of` of a prepared case.

    Raises:
        DataError: It has no reference, or one of another shape than its image.
    """
    if case.native_label is None:
        raise DataError("no reference to fit on", where=case.case_id, mend="take the image out of the set")
    facts = CaseFacts(case.case_id, case.group, case.content_hash, case.geometry.native_spacing, case.annotated)
    return regions_of(prediction, case.native_label, facts, num_classes=num_classes)


def regions_of(
    prediction: Int[np.ndarray, "..."], reference: Int[np.ndarray, "..."], case: CaseFacts, *, num_classes: int
) -> Regions:
    """The regions of one prediction.

    Args:
        prediction: Class of each voxel, 0 ... K-1.
        reference: Likewise; -1 where nobody annotated.
        case: Whose they are.
        num_classes: K, background included.

    Raises:
        DataError: The shapes differ, or a value is not a class.
    """
    if reference.shape != prediction.shape:
        why = f"image {prediction.shape}, label {reference.shape}"
        raise DataError("image and label differ in shape", where=case.case_id, why=why)
    for name, values, lowest in (("prediction", prediction, 0), ("reference", reference, -1)):
        if values.size and not lowest <= int(values.min()) <= int(values.max()) < num_classes:
            why = f"values {int(values.min())} to {int(values.max())}, classes 0 to {num_classes - 1}"
            raise DataError(f"the {name} holds a value that is not a class", where=case.case_id, why=why)
    whole = np.bincount(reference.reshape(-1) + 1, minlength=num_classes + 1)[None, 1:]
    box = _widened(union_box(*boxes_of(prediction).values()), prediction.shape)
    label, truth = prediction[box], reference[box]
    ids, classes = _faced_regions(label)
    count = len(classes)
    table = np.bincount(ids.reshape(-1) * np.int64(num_classes + 1) + (truth.reshape(-1) + 1))
    table = np.pad(table, (0, count * (num_classes + 1) - len(table))).reshape(count, num_classes + 1)
    outside = np.zeros(count, dtype=bool)
    for axis in range(ids.ndim if ids.size else 0):
        outside[ids.take((0, -1), axis=axis)] = True
    first = np.zeros(count, dtype=np.int64)
    first[ids.reshape(-1)[::-1]] = np.arange(ids.size - 1, -1, -1)  # the last that is written is the first voxel
    borders, faces = _borders(ids, count)
    return Regions(
        cases=(case,),
        reference=whole,
        case=np.zeros(count, dtype=np.int64),
        label=classes,
        voxels=table.sum(axis=1),
        counts=table[:, 1:],
        first=first,
        outside=outside,
        borders=borders,
        faces=faces,
    )


def joined(tables: Sequence[Regions]) -> Regions:
    """One table of several.

    Raises:
        ValueError: There is none.
    """
    if not tables:
        raise ValueError("no table of regions to join")
    cases = np.cumsum([0, *(len(one.cases) for one in tables)])
    regions = np.cumsum([0, *(len(one.label) for one in tables)])
    moved: dict[str, list[Any]] = {
        field.name: [getattr(one, field.name) for one in tables] for field in fields(Regions)
    }
    moved["case"] = [one.case + start for one, start in zip(tables, cases, strict=False)]
    moved["borders"] = [one.borders + start for one, start in zip(tables, regions, strict=False)]
    facts = tuple(case for one in tables for case in one.cases)
    return Regions(facts, **{name: np.concatenate(parts) for name, parts in moved.items() if name != "cases"})


def classes_after(regions: Regions, rules: PostProcessing, names: Sequence[str]) -> Int[np.ndarray, " R"]:
    """The class of each region after post-processing: what `PostProcessing.apply` does, with no voxel touched.

    Args:
        regions: Of any number of cases.
        rules: What is done.
        names: Class names, background first.
    """
    label = regions.label.copy()
    member = regions.components[rules.connectivity]
    sizes = np.bincount(member, weights=regions.voxels)
    for rule in rules.rules:
        index = names.index(rule.name)
        if rule.min_mm3 > 0:
            smallest = np.array([voxels_of_volume(rule.min_mm3, case.spacing) for case in regions.cases])
            label[(label == index) & (sizes[member] < smallest[regions.case])] = 0
        if rule.keep == "largest":
            mine = label == index
            label[mine & ~_largest(regions, member, mine)] = 0
    if rules.foreground == "largest":
        there = label > 0
        label[there & ~_largest(regions, _groups_of(regions, there, rules.connectivity), there)] = 0
    filled = [names.index(rule.name) for rule in rules.rules if rule.holes == "fill"]
    if filled:
        encloses = _enclosing(regions, label, BETWEEN[rules.connectivity])
        label = np.where(np.isin(encloses, filled), encloses, label)
    return label


def _groups_of(regions: Regions, among: Bool[np.ndarray, " R"], connectivity: Connectivity) -> Int[np.ndarray, " R"]:
    """Numbers of the groups of regions that touch each other; those that are not among them stand alone."""
    pairs = regions.joined_by(connectivity)
    return _grouped(len(regions.label), pairs[among[pairs].all(axis=1)])


def _largest(regions: Regions, member: Int[np.ndarray, " R"], among: Bool[np.ndarray, " R"]) -> Bool[np.ndarray, " R"]:
    """Which regions belong to the largest group of their case; of equal ones to that which comes first."""
    chosen = np.flatnonzero(among)
    names, inverse = np.unique(member[chosen], return_inverse=True)
    sizes = np.bincount(inverse, weights=regions.voxels[chosen], minlength=len(names))
    first = np.full(len(names), np.iinfo(np.int64).max)
    np.minimum.at(first, inverse, regions.first[chosen])
    case = np.zeros(len(names), dtype=np.int64)
    case[inverse] = regions.case[chosen]
    order = np.lexsort((first, -sizes, case))
    leads = np.diff(case[order], prepend=-1) > 0
    kept = np.zeros(len(regions.label), dtype=bool)
    kept[chosen] = np.isin(inverse, order[leads])
    return kept


def _enclosing(regions: Regions, label: Int[np.ndarray, " R"], connectivity: Connectivity) -> Int[np.ndarray, " R"]:
    """For each region of the background the class that encloses it alone; 0 where there is none, and elsewhere."""
    background = label == 0
    member = _groups_of(regions, background, connectivity)
    outside = np.bincount(member, weights=regions.outside & background) > 0
    pairs = regions.joined_by(connectivity)
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    inner, outer = pairs[background[pairs[:, 0]] & ~background[pairs[:, 1]]].T
    lowest = np.full(len(outside), regions.num_classes)
    highest = np.zeros(len(outside), dtype=np.int64)
    np.minimum.at(lowest, member[inner], label[outer])
    np.maximum.at(highest, member[inner], label[outer])
    return np.where(background, np.where(~outside & (lowest == highest), highest, 0)[member], 0)


def _grouped(count: int, pairs: Int[np.ndarray, "B 2"]) -> Int[np.ndarray, " R"]:
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    graph = sparse.coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return np.asarray(groups_of_graph(graph, directed=False)[1], dtype=np.int64)


def _widened(box: Slices | None, shape: tuple[int, ...]) -> Slices:
    """One voxel wider on all sides, within the image; empty where there is no box."""
    if box is None:
        return (slice(0, 0),) * len(shape)
    return tuple(slice(max(0, axis.start - 1), min(n, axis.stop + 1)) for axis, n in zip(box, shape, strict=True))


def _faced_regions(label: Int[np.ndarray, "*S"]) -> tuple[Int[np.ndarray, "*S"], Int[np.ndarray, " R"]]:
    """Number of each voxel's region, from 0, and the class of each region."""
    ids = np.zeros(label.shape, dtype=np.int32)
    everywhere: Slices = (slice(None),) * label.ndim
    classes, count = [np.zeros(0, dtype=np.int64)], 0
    for value, box in {0: everywhere, **boxes_of(label)}.items() if label.size else ():
        pieces, found = connected_components(label[box] == value, connectivity="faces")
        np.add(pieces, count - 1, out=ids[box], where=pieces > 0)
        classes.append(np.full(found, value, dtype=np.int64))
        count += found
    return ids, np.concatenate(classes)


def _borders(ids: Int[np.ndarray, "*S"], count: int) -> tuple[Int[np.ndarray, "E 2"], Bool[np.ndarray, " E"]]:
    """Pairs of regions that share at least a corner, and whether they share a face."""
    # One of each two opposite neighbours: the first step that is not 0 goes forward.
    steps = [step for step in product((0, 1, -1), repeat=ids.ndim) if any(step) and next(s for s in step if s) == 1]
    by_faces: dict[bool, list[Int[np.ndarray, " P"]]] = {True: [], False: []}
    for step in steps:
        here = ids[tuple(slice(max(0, -s), min(n, n - s)) for s, n in zip(step, ids.shape, strict=True))]
        there = ids[tuple(slice(max(0, s), min(n, n + s)) for s, n in zip(step, ids.shape, strict=True))]
        differ = here != there
        a, b = here[differ].astype(np.int64), there[differ].astype(np.int64)
        by_faces[sum(map(abs, step)) == 1].append(np.unique(np.minimum(a, b) * count + np.maximum(a, b)))
    faces = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *by_faces[True]]))
    corners = np.setdiff1d(np.concatenate([np.zeros(0, dtype=np.int64), *by_faces[False]]), faces)
    codes = np.concatenate([faces, corners])
    pairs = np.stack([codes // max(count, 1), codes % max(count, 1)], axis=1)
    return pairs, np.arange(len(codes)) < len(faces)

"""What is changed in a predicted label map: small components removed, the largest one kept, holes filled.

Everything works on the image's own voxels. The order is fixed, so that doing it twice is doing it once:

    1. of each class that is named: components below `min_mm3` become background
    2. ... and so do all but the largest of those that are left (keep="largest")
    3. all classes taken together: all but the largest component (foreground="largest")
    4. of each class that is named: its holes become the class (holes="fill")

A component joins voxels that share a corner (connectivity="full") or a face ("faces"). A hole of a class is a
component of the background, by the other of the two, that does not reach the border of the image and whose neighbours
are all of this class: what another class borders on stays. Removing comes first, since what is removed from within a
structure leaves a hole in it; nothing that is filled makes a component smaller or a new one.

Ties of the largest go to the component that comes first in scan order.
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Bool, Int
from scipy import ndimage

from segkit.errors import UsageError
from segkit.ops.bounding_box import Slices, bounding_box, boxes_of, union_box
from segkit.ops.connected_components import Connectivity, connected_components, voxels_of_volume
from segkit.types import Labels, Spacing

Keep: TypeAlias = Literal["all", "largest"]
Holes: TypeAlias = Literal["leave", "fill"]
LabelMap: TypeAlias = Int[np.ndarray, "*S"]

BETWEEN: Mapping[Connectivity, Connectivity] = {"full": "faces", "faces": "full"}
"""Connectivity of the background that goes with that of the components: a diagonal wall is either joined or leaky."""
ORDER = ("min_mm3", "keep", "foreground", "holes")
"""Written with the rules: a file that means another order is refused."""


def remove_small(
    label: LabelMap, index: int, *, voxels: int, connectivity: Connectivity = "full", box: Slices | None = None
) -> LabelMap:
    """Components of a class below a size become background.

    Args:
        label: (*S) class of each voxel; values below 0 (ignored) are never touched.
        index: The class.
        voxels: Smaller components go; one of just this size stays.
        connectivity: What joins voxels.
        box: Where the class lies, if that is known.

    Returns:
        A new map, or the given one where nothing changes.
    """
    box = box or bounding_box(label == index)
    if box is None:
        return label
    ids, sizes = _components(label[box] == index, connectivity)
    return _cleared(label, box, ids, sizes >= voxels)


def keep_largest(
    label: LabelMap, index: int | None = None, *, connectivity: Connectivity = "full", box: Slices | None = None
) -> LabelMap:
    """All but the largest component of a class become background.

    Args:
        label: (*S) class of each voxel; values below 0 (ignored) are never touched.
        index: The class; None: all classes above 0 taken together.
        connectivity: What joins voxels.
        box: Where they lie, if that is known.

    Returns:
        A new map, or the given one where nothing changes.
    """
    box = box or bounding_box(label > 0 if index is None else label == index)
    if box is None:
        return label
    ids, sizes = _components(label[box] > 0 if index is None else label[box] == index, connectivity)
    largest = int(np.argmax(sizes)) if len(sizes) else 0
    return _cleared(label, box, ids, np.arange(len(sizes)) == largest)


def fill_holes(
    label: LabelMap, index: int, *, connectivity: Connectivity = "full", box: Slices | None = None
) -> LabelMap:
    """Background that a class encloses, and nothing but this class, becomes the class.

    Args:
        label: (*S) class of each voxel; 0 is background, values below 0 (ignored) count as another class.
        index: The class.
        connectivity: What joins voxels of the class; the background is joined by the other one.
        box: Where the class lies, if that is known.

    Returns:
        A new map, or the given one where nothing changes.
    """
    box = box or bounding_box(label == index)
    if box is None:
        return label
    part = label[box]
    background = part == 0
    ids, count = connected_components(background, connectivity=BETWEEN[connectivity])
    enclosed = np.ones(count + 1, dtype=bool)
    # Around a hole there is the class on all sides, so that it lies inside the box of the class and off its border.
    for axis in range(part.ndim):
        enclosed[ids.take((0, -1), axis=axis)] = False
    others = ~background & (part != index)
    if others.any():
        around = ndimage.generate_binary_structure(part.ndim, 1 if BETWEEN[connectivity] == "faces" else part.ndim)
        enclosed[ids[ndimage.binary_dilation(others, around)]] = False
    enclosed[0] = False  # what is no background
    if not enclosed.any():
        return label
    filled = label.copy()
    filled[box][enclosed[ids]] = index
    return filled


@dataclass(frozen=True)
class ClassRule:
    """What is done to one class.

    Args:
        name: Class name.
        min_mm3: Smaller components are removed, mm^3 (mm^2 for two axes, pixels where the files know no mm).
        keep: Whether only the largest of the others stays.
        holes: Whether its holes are filled.

    Raises:
        ValueError: The size is negative or not finite.
    """

    name: str
    min_mm3: float = 0.0
    keep: Keep = "all"
    holes: Holes = "leave"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.min_mm3) and self.min_mm3 >= 0):
            raise ValueError(f"min_mm3 of {self.name} is {self.min_mm3}, no size")

    @property
    def changes(self) -> bool:
        """Whether it does anything."""
        return self.min_mm3 > 0 or self.keep == "largest" or self.holes == "fill"

    def text(self, unit: str = "mm^3") -> str:
        """For people: `below 12 mm^3 removed, largest component kept, holes filled`."""
        said = [f"below {self.min_mm3:g} {unit} removed"] if self.min_mm3 > 0 else []
        said += ["largest component kept"] if self.keep == "largest" else []
        said += ["holes filled"] if self.holes == "fill" else []
        return ", ".join(said) or "as predicted"


@dataclass(frozen=True)
class PostProcessing:
    """Rules for a label map, applied in the order that this module states; classes that are not named stay.

    Args:
        rules: At most one a class.
        foreground: Whether only the largest component of all classes together stays.
        connectivity: What joins voxels of a component.

    Raises:
        ValueError: Two rules for one class.
    """

    rules: tuple[ClassRule, ...] = ()
    foreground: Keep = "all"
    connectivity: Connectivity = "full"

    def __post_init__(self) -> None:
        if len({rule.name for rule in self.rules}) != len(self.rules):
            raise ValueError("a class has two rules")

    @property
    def changes(self) -> bool:
        """Whether it does anything."""
        return self.foreground == "largest" or any(rule.changes for rule in self.rules)

    def rule(self, name: str) -> ClassRule:
        """The rule of a class; one that does nothing where it is not named."""
        return next((rule for rule in self.rules if rule.name == name), ClassRule(name))

    def with_rule(self, rule: ClassRule) -> "PostProcessing":
        """The same with this rule for its class."""
        others = tuple(one for one in self.rules if one.name != rule.name)
        return PostProcessing((*others, rule), self.foreground, self.connectivity)

    def require_suits(self, labels: Labels) -> None:
        """Refuse rules that these labels cannot have.

        Raises:
            UsageError: A class that there is not; or labels are instances, and a rule would remove all but one.
        """
        unknown = sorted({rule.name for rule in self.rules} - set(labels.foreground))
        if unknown:
            raise UsageError(
                f"post-processing names a class that there is not: {', '.join(unknown)}",
                where="postprocess",
                mend=f"the classes are {', '.join(labels.foreground)}",
            )
        if labels.kind == "instances" and (
            self.foreground == "largest" or any(r.keep == "largest" or r.holes == "fill" for r in self.rules)
        ):
            raise UsageError(
                "where labels are instances only a smallest size can be asked for",
                where="postprocess",
                why="each component is an object: the largest one is not the right one, and a ring of objects that "
                "touch encloses no hole",
                mend="a rule with min_mm3 alone",
            )

    def apply(self, label: LabelMap, *, spacing: Spacing, labels: Labels) -> LabelMap:
        """The label map as the rules leave it; the given one is not changed.

        Args:
            label: (*S) class index of each voxel.
            spacing: Size of a voxel by axis, mm.
            labels: Class names.

        Raises:
            UsageError: See `require_suits`.
        """
        self.require_suits(labels)
        boxes = boxes_of(label) if self.changes else {}  # those of the beginning hold all that comes later
        join = self.connectivity
        indexed = [(labels.names.index(rule.name), rule) for rule in self.rules]
        there = [(index, rule, boxes[index]) for index, rule in indexed if index in boxes]
        for index, rule, box in there:
            if rule.min_mm3 > 0:
                smallest = voxels_of_volume(rule.min_mm3, spacing)
                label = remove_small(label, index, voxels=smallest, connectivity=join, box=box)
            if rule.keep == "largest":
                label = keep_largest(label, index, connectivity=join, box=box)
        if self.foreground == "largest":
            label = keep_largest(label, connectivity=join, box=union_box(*boxes.values()))
        for index, rule, box in there:
            if rule.holes == "fill":
                label = fill_holes(label, index, connectivity=join, box=box)
        return label

    def text(self, unit: str = "mm^3") -> str:
        """For people: `Anterior: largest component kept; Posterior: below 12 mm^3 removed`."""
        said = [f"{rule.name}: {rule.text(unit)}" for rule in self.rules if rule.changes]
        said += ["all classes together: largest component kept"] if self.foreground == "largest" else []
        return "; ".join(said) or "nothing is changed"

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "connectivity": self.connectivity,
            "foreground": self.foreground,
            "classes": {
                rule.name: {"min_mm3": rule.min_mm3, "keep": rule.keep, "holes": rule.holes} for rule in self.rules
            },
            "order": list(ORDER),
        }

    @classmethod
    def from_json(cls, value: object) -> "PostProcessing":
        """Read what `to_json` wrote.

        Raises:
            ValueError: It is something else, or of an order that is not this one.
        """
        keys = {"connectivity", "foreground", "classes", "order"}
        if not isinstance(value, dict) or set(value) != keys or not isinstance(value["classes"], dict):
            raise ValueError(f"the rules are no mapping of {', '.join(sorted(keys))}")
        if value["order"] != list(ORDER):
            raise ValueError(f"the rules are meant in another order: {str(value['order'])[:200]!r}")
        _require_one_of(value["foreground"], get_args(Keep), "foreground")
        _require_one_of(value["connectivity"], get_args(Connectivity), "connectivity")
        rules = tuple(_rule(name, one) for name, one in value["classes"].items())
        return cls(rules, value["foreground"], value["connectivity"])


def _rule(name: str, value: object) -> ClassRule:
    if not isinstance(value, dict) or set(value) != {"min_mm3", "keep", "holes"} or not name.isprintable():
        raise ValueError(f"the rule of {name[:80]!r} is no mapping of holes, keep and min_mm3")
    size = value["min_mm3"]
    if not isinstance(size, int | float) or isinstance(size, bool) or not 0 <= size <= sys.float_info.max:
        raise ValueError(f"min_mm3 of {name[:80]!r} is {str(size)[:80]!r}")
    _require_one_of(value["keep"], get_args(Keep), f"keep of {name[:80]!r}")
    _require_one_of(value["holes"], get_args(Holes), f"holes of {name[:80]!r}")
    return ClassRule(name, float(size), value["keep"], value["holes"])


def _require_one_of(value: object, choices: tuple[str, ...], what: str) -> None:
    if value not in choices:
        raise ValueError(f"{what} is {str(value)[:80]!r}, none of {', '.join(choices)}")


def _components(
    mask: Bool[np.ndarray, "*S"], connectivity: Connectivity
) -> tuple[Int[np.ndarray, "*S"], Int[np.ndarray, " N"]]:
    """Ids 1 ... N of the components, 0 outside, and the voxels of each."""
    ids, count = connected_components(mask, connectivity=connectivity)
    return ids, np.bincount(ids.reshape(-1), minlength=count + 1)[1:]


def _cleared(label: LabelMap, box: Slices, ids: Int[np.ndarray, "..."], kept: Bool[np.ndarray, " N"]) -> LabelMap:
    """The map without the components that are not kept."""
    if kept.all():
        return label
    cleared = label.copy()
    cleared[box][~np.concatenate([[True], kept])[ids]] = 0
    return cleared

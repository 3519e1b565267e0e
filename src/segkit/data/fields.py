"""Voxel fields that some losses ask for: instances on the plan's grid and their Voronoi cells.

Computed once a case when it is prepared, cut with the patch and warped with the label ever after.
"""

import numpy as np
from jaxtyping import Int

from segkit.data.preprocessing import cut
from segkit.ops.instances import components_by_class, voronoi_cells
from segkit.ops.resample import resample_label
from segkit.planning.rules import separate_axis
from segkit.types import ID_FIELDS, PreparedCase, Spacing

STORED_FIELDS = frozenset(ID_FIELDS)
"""Fields of `Target` that are kept in the store."""
FORMAT = 2
"""Counts up whenever the same case gives other fields; entries that keep none are not made again."""


def instances(prepared: PreparedCase, *, spacing: Spacing) -> Int[np.ndarray, "*S"]:
    """Instance ids on the plan's grid, 1 ... n: the annotated ones, else the connected components of each class.

    Annotated instances stay what they are, whether or not they touch; only their numbers may change.

    Args:
        prepared: Case with a label.
        spacing: Of the plan.

    Raises:
        ValueError: For a case without a label.
    """
    if prepared.label is None:
        raise ValueError(f"case {prepared.case_id} has no label")
    if prepared.native_instances is None:
        return components_by_class(np.asarray(prepared.label))
    geometry = prepared.geometry
    apart = separate_axis(geometry.native_spacing, spacing)
    here = cut(prepared.native_instances, geometry.crop)
    ids = resample_label(here, prepared.label.shape, separate_axis=apart)
    found, numbers = np.unique(np.where(prepared.label > 0, ids, 0), return_inverse=True)
    first = 0 if found[0] == 0 else 1  # without any background there is no 0 among them
    return (numbers.reshape(ids.shape) + first).astype(np.int32)


def cells(ids: Int[np.ndarray, "*S"], *, spacing: Spacing) -> Int[np.ndarray, "*S"]:
    """The id of the nearest instance of each voxel, by distance in mm; 0 everywhere without instances.

    Args:
        ids: Instance ids, 0 background.
        spacing: mm by axis.
    """
    return voronoi_cells(ids, spacing)

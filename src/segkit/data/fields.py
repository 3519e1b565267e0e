"""Voxel fields that some losses ask for: instances on the plan's grid and their Voronoi cells.

Computed once a case when it is prepared, cut with the patch and warped with the label ever after.
"""

import numpy as np
from jaxtyping import Int
from scipy import ndimage

from segkit.data.preprocessing import cut
from segkit.ops.connected_components import connected_components
from segkit.ops.resample import resample_label
from segkit.planning.rules import separate_axis
from segkit.types import PreparedCase, Spacing

STORED_FIELDS = frozenset({"instances", "cells"})
"""Fields of `Target` that are kept in the store."""


def instances(prepared: PreparedCase, *, spacing: Spacing) -> Int[np.ndarray, "*S"]:
    """Instance ids on the plan's grid: the annotated ones, else connected components of the foreground.

    Args:
        prepared: Case with a label.
        spacing: Of the plan.

    Raises:
        ValueError: For a case without a label.
    """
    if prepared.label is None:
        raise ValueError(f"case {prepared.case_id} has no label")
    if prepared.native_instances is None:
        ids, _ = connected_components(np.asarray(prepared.label) > 0)
        return ids.astype(np.int32)
    geometry = prepared.geometry
    apart = separate_axis(geometry.native_spacing, spacing)
    here = cut(prepared.native_instances, geometry.crop)
    return resample_label(here, prepared.label.shape, separate_axis=apart).astype(np.int32)


def cells(ids: Int[np.ndarray, "*S"], *, spacing: Spacing) -> Int[np.ndarray, "*S"]:
    """The id of the nearest instance of each voxel, by distance in mm; 0 everywhere without instances.

    Args:
        ids: Instance ids, 0 background.
        spacing: mm by axis.
    """
    if not ids.any():
        return np.zeros_like(ids)
    nearest = ndimage.distance_transform_edt(ids == 0, sampling=spacing, return_distances=False, return_indices=True)
    return np.ascontiguousarray(ids[tuple(nearest)])

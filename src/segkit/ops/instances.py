"""Instance ids of a whole image or a patch: numbered where nobody gave any, made compact, with a cell for each."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Integer
from scipy import ndimage

from segkit.ops.connected_components import connected_components
from segkit.types import Spacing

_MOST_IN_16_BITS = 2**15 - 1


def components_by_class(label: Integer[np.ndarray, "*S"]) -> Int[np.ndarray, "*S"]:
    """Number the connected components of each class: two classes that touch are two components.

    Voxels that share a corner are connected (8 neighbours in 2D, 26 in 3D).

    Args:
        label: Class of each voxel; 0 and below belong to no component.

    Returns:
        Ids (*S) int32, 0 outside and 1 ... n inside: class by class, each in scan order.
    """
    ids = np.zeros(label.shape, dtype=np.int32)
    count = 0
    for index in range(1, int(label.max(initial=0)) + 1):
        found, here = connected_components(np.asarray(label) == index)
        np.add(found, count, out=ids, where=found > 0)
        count += here
    return ids


def voronoi_cells(ids: Integer[np.ndarray, "*S"], spacing: Spacing) -> Integer[np.ndarray, "*S"]:
    """The id of the nearest instance of each voxel, by distance in mm; 0 everywhere without instances.

    One distance transform, whatever the number of instances.

    Args:
        ids: Instance ids, 0 outside.
        spacing: Size of a voxel, mm by axis.
    """
    if not ids.any():
        return np.zeros_like(ids)
    nearest = ndimage.distance_transform_edt(ids == 0, sampling=spacing, return_distances=False, return_indices=True)
    return np.ascontiguousarray(ids[tuple(nearest)])


def compact(maps: Sequence[Integer[np.ndarray, "*S"]]) -> tuple[list[Int[np.ndarray, "*S"]], int]:
    """Renumber the ids that occur as 1 ... n, in their order; the same id becomes the same number in every map.

    By a table of the ids, without sorting voxels.

    Args:
        maps: Ids, 0 outside; of one image, none below 0.

    Returns:
        The maps in int16 (int32 beyond 32767 ids), and n.
    """
    largest = max((int(each.max(initial=0)) for each in maps), default=0)
    occurs = np.zeros(largest + 1, dtype=bool)
    for each in maps:
        occurs[each] = True
    occurs[0] = False
    count = int(occurs.sum())
    table = np.cumsum(occurs, dtype=np.int16 if count <= _MOST_IN_16_BITS else np.int32)
    table[~occurs] = 0
    return [table[each] for each in maps], count

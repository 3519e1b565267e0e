"""Connected components of a mask."""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Int
from scipy import ndimage


def connected_components(
    mask: Bool[np.ndarray, "*S"], *, connectivity: Literal["full", "faces"] = "full"
) -> tuple[Int[np.ndarray, "*S"], int]:
    """Number the components of a mask.

    Args:
        mask: (*S), two or three axes.
        connectivity: `full` joins voxels that share a corner (8 neighbours in 2D, 26 in 3D); `faces` only those that
            share a face (4 and 6).

    Returns:
        Ids (*S) int32, 0 outside and 1 ... count inside, in scan order; and their count.
    """
    structure = ndimage.generate_binary_structure(mask.ndim, mask.ndim if connectivity == "full" else 1)
    ids, count = ndimage.label(mask, structure=structure)
    return ids.astype(np.int32, copy=False), int(count)

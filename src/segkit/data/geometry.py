"""From the file's voxel order to the closest RAS+ order, and back; exact, for nothing is resampled."""

from itertools import permutations

import numpy as np
from jaxtyping import Float, Shaped

from segkit.types import Geometry, Volume


def canonical(volume: Volume) -> tuple[Shaped[np.ndarray, "C *S"], Geometry]:
    """Permute and flip the axes so that they run towards right, anterior and superior as closely as they can.

    An oblique image stays oblique: axes are exchanged and turned round, voxels are not moved. Pictures, single
    slices and files without a physical frame keep their order.

    Args:
        volume: Image or label as read.

    Returns:
        The array (C, *S) in the new order (a view), and the way back.
    """
    dimensions = len(volume.spatial_shape)
    if dimensions == 3 and volume.unit == "mm" and volume.affine.shape == (4, 4):
        permutation, flips = _closest_axes(volume.affine[:3, :3])
    else:
        permutation, flips = tuple(range(dimensions)), (False,) * dimensions
    array = volume.array.transpose(0, *(axis + 1 for axis in permutation))
    array = np.flip(array, tuple(i + 1 for i, flip in enumerate(flips) if flip))
    shape = tuple(array.shape[1:])
    return array, Geometry(
        permutation=permutation,
        flips=flips,
        native_shape=shape,
        native_spacing=tuple(volume.spacing[axis] for axis in permutation),
        crop=tuple((0, size) for size in shape),
        unit=volume.unit,
    )


def to_file_order(array: Shaped[np.ndarray, "..."], geometry: Geometry) -> Shaped[np.ndarray, "..."]:
    """The inverse of `canonical`: RAS+ order back to the order of the file.

    Args:
        array: (..., *S) in RAS+ order, of the whole image; leading axes (channels) stay.
        geometry: What `canonical` returned.

    Returns:
        The array in the file's voxel order (a view).
    """
    leading = array.ndim - len(geometry.permutation)
    array = np.flip(array, tuple(leading + i for i, flip in enumerate(geometry.flips) if flip))
    back = np.argsort(geometry.permutation)
    return array.transpose(*range(leading), *(leading + int(axis) for axis in back))


def _closest_axes(matrix: Float[np.ndarray, "3 3"]) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Which file axis lies along each of right, anterior, superior, and whether it runs the other way.

    Of the six assignments the one with the largest sum of absolute cosines; at a tie (45 degrees) the first in
    lexical order, so that image and label of one case cannot part.
    """
    cosines = matrix / np.linalg.norm(matrix, axis=0)
    # Rounded, so that a tie is a tie whatever the last bits of the header.
    scores = {
        order: round(sum(abs(cosines[i, axis]) for i, axis in enumerate(order)), 6) for order in permutations(range(3))
    }
    best = max(scores, key=lambda order: scores[order])
    return best, tuple(bool(cosines[i, axis] < 0) for i, axis in enumerate(best))

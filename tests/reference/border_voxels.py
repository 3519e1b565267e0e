"""The surface as other packages take it: the voxels of a mask with a face to the outside, each counting 1.

segkit takes the elements between voxels, weighted by area. With these few lines what MONAI and panoptica say of a
distance is written out, so that nothing but the convention is left of the difference.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

Distances = NDArray[np.float64]


class BorderDistances(NamedTuple):
    """Distance of each border voxel to the nearest one of the other mask, mm."""

    of_reference: Distances
    of_prediction: Distances

    @property
    def pooled(self) -> Distances:
        """Both directions together."""
        return np.concatenate([self.of_reference, self.of_prediction])


def border_distances(
    reference: NDArray[np.bool_], prediction: NDArray[np.bool_], spacing: tuple[float, ...]
) -> BorderDistances:
    """Distances of the border voxels of two masks that are not empty; the edge of the image is an outside."""
    points = [
        np.argwhere(mask & ~ndimage.binary_erosion(mask)) * np.asarray(spacing) for mask in (reference, prediction)
    ]
    of_reference, of_prediction = points
    return BorderDistances(KDTree(of_prediction).query(of_reference)[0], KDTree(of_reference).query(of_prediction)[0])

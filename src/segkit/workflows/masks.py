"""From class indices in RAS+ order to a mask as its image's users expect it."""

from pathlib import Path

import numpy as np
from jaxtyping import Int

from segkit.data.geometry import to_file_order
from segkit.data.readers import write
from segkit.ops.connected_components import connected_components
from segkit.types import Geometry, Labels, Volume


def label_values(prediction: Int[np.ndarray, "..."], geometry: Geometry, labels: Labels) -> Int[np.ndarray, "..."]:
    """Class indices in RAS+ order to the ids of the training labels, in the order of the file.

    Where the labels are instances, the ids count the connected components of the foreground.
    """
    if labels.kind == "instances":
        values, _ = connected_components(prediction > 0)
    else:
        values = np.asarray(labels.ids, dtype=np.int32)[prediction]
    return np.ascontiguousarray(to_file_order(values, geometry))


def write_mask(
    path: Path, prediction: Int[np.ndarray, "..."], *, geometry: Geometry, labels: Labels, like: Volume
) -> Path:
    """Write a prediction in the geometry, size, data type and file type of its image; whole or not at all.

    Returns:
        The path that was written: its ending is the image's.
    """
    return write(path, label_values(prediction, geometry, labels), like=like)

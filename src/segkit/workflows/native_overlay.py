"""The overlay of one case on its own voxels, with the intensities of its own file."""

from pathlib import Path
from typing import Any

import numpy as np

from segkit.data.cases import read_image
from segkit.data.geometry import canonical
from segkit.reporting.overlays import draw_overlay
from segkit.types import Case, Labels, PreparedCase


def draw_native(
    case: Case,
    prepared: PreparedCase,
    prediction: np.ndarray[Any, np.dtype[np.int16]] | None,
    *,
    labels: Labels,
    path: Path,
    title: str,
) -> None:
    """Draw a case as it lies in its file: a z-scored picture has colours that nobody has seen.

    Args:
        case: Where the image is; it is read again.
        prepared: The same case, for its reference and geometry.
        prediction: Class of each native voxel in RAS+ order.
        labels: Class names.
        path: PNG to write.
        title: Stands above.
    """
    draw_overlay(
        canonical(read_image(case))[0],
        None if prepared.native_label is None else np.asarray(prepared.native_label),
        prediction,
        path=path,
        title=title,
        spacing=prepared.geometry.native_spacing,
        labels=labels,
        unit=prepared.geometry.unit,
    )

r"""Dice of each reference lesion within its own cell: a small lesion counts as much as a large one.

Every voxel belongs to the reference component it is nearest to (in mm): the component's Voronoi cell. With r the
component, c its cell and P the prediction,

    Dice_r = 2 |P n r| / (|P n c| + |r|),    CC-Dice = mean over the components r

so that a false alarm costs the lesion it lies nearest to, and a missed lesion counts 0.

Reference: Jaus et al., Every component counts: rethinking the measure of success for medical semantic segmentation in
multi-instance segmentation tasks, AAAI 2025.
"""

import math

import numpy as np
from jaxtyping import Bool, Int

from segkit.ops.instances import voronoi_cells
from segkit.types import Spacing


def component_dice(
    reference: Int[np.ndarray, "*S"], prediction: Bool[np.ndarray, "..."], *, spacing: Spacing
) -> tuple[float, ...]:
    """Dice of each reference component within its cell, by rising id.

    Args:
        reference: Component id of each voxel, 0 outside.
        prediction: Mask (*S).
        spacing: Size of a voxel, mm by axis.

    Returns:
        One value a component; empty where the reference is.

    Raises:
        ValueError: Masks of different shape.
    """
    if reference.shape != prediction.shape:
        raise ValueError(f"masks of shape {reference.shape} and {prediction.shape}")
    ids = np.unique(reference[reference > 0])
    if not len(ids):
        return ()
    cells = voronoi_cells(reference, spacing)
    count = len(ids)
    own = np.bincount(np.searchsorted(ids, reference[reference > 0]), minlength=count)
    hit = np.bincount(np.searchsorted(ids, reference[(reference > 0) & prediction]), minlength=count)
    within = np.bincount(np.searchsorted(ids, cells[prediction]), minlength=count)
    return tuple((2 * hit / (within + own)).tolist())


def mean_component_dice(values: tuple[float, ...]) -> float:
    """Mean over the components; NaN without one."""
    return math.fsum(values) / len(values) if values else math.nan

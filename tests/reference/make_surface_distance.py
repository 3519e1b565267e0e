"""Makes surface_distance.json: DeepMind's surface-distance on the pairs of masks.

python -m venv /tmp/deepmind && /tmp/deepmind/bin/pip install numpy==1.23.5 scipy==1.10.1
/tmp/deepmind/bin/pip install --no-deps surface-distance-based-measures==0.1
/tmp/deepmind/bin/python -m tests.reference.make_surface_distance      (in the root of the checkout)
"""

from importlib.metadata import version
from pathlib import Path

import surface_distance
from tests.reference.agreement_masks import PAIRS, MaskPair
from tests.reference.stored_results import write

PACKAGE = "surface-distance-based-measures"
TOLERANCES = (0.45, 1.1, 2.3)


def results_of(pair: MaskPair) -> dict[str, float]:
    """Robust Hausdorff distances, both mean distances, surface Dice, and the area of both surfaces."""
    found = surface_distance.compute_surface_distances(pair.reference, pair.prediction, pair.spacing)
    to_prediction, to_reference = surface_distance.compute_average_surface_distance(found)
    return {
        "hd95": surface_distance.compute_robust_hausdorff(found, 95),
        "hd100": surface_distance.compute_robust_hausdorff(found, 100),
        "from_reference": to_prediction,
        "from_prediction": to_reference,
        "area_of_reference": found["surfel_areas_gt"].sum(),
        "area_of_prediction": found["surfel_areas_pred"].sum(),
        **{f"nsd_{t}": surface_distance.compute_surface_dice_at_tolerance(found, t) for t in TOLERANCES},
    }


if __name__ == "__main__":
    write(
        Path(__file__).with_name("surface_distance.json"),
        package=f"{PACKAGE} {version(PACKAGE)}",
        made_by="tests/reference/make_surface_distance.py",
        results={pair.name: results_of(pair) for pair in PAIRS},
    )

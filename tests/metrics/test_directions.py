from segkit.metrics.directions import BETTER
from segkit.metrics.overlap import METRICS


def test_every_overlap_is_known_and_distances_are_better_when_small():
    assert {BETTER[metric] for metric in METRICS} == {"higher"}
    assert {name for name, way in BETTER.items() if way == "lower"} == {
        name for name in BETTER if name.endswith(("_mm", "_px"))
    }

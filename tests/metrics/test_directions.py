from segkit.evaluation.files import DETAIL_COLUMNS
from segkit.metrics.directions import BETTER
from segkit.metrics.overlap import METRICS

COUNTS = {"surface_found", "lesion_splits", "lesion_merges", "lesion_invented_mm3"}
"""What is told of a case beside its metrics, and not compared."""


def test_every_metric_of_the_tables_is_known_and_no_other():
    assert set(BETTER) == set(METRICS) | set(DETAIL_COLUMNS) - COUNTS


def test_distances_are_better_when_small():
    assert {name for name, way in BETTER.items() if way == "lower"} == {"hd95", "assd"}

"""Makes panoptica.json: panoptica on the pairs of masks.

python -m venv /tmp/panoptica && /tmp/panoptica/bin/pip install panoptica==2.1.7
/tmp/panoptica/bin/python -m tests.reference.make_panoptica            (in the root of the checkout)
"""

from importlib.metadata import version
from pathlib import Path

import numpy as np
from panoptica import ConnectedComponentsInstanceApproximator, InputType, NaiveThresholdMatching, Panoptica_Evaluator
from panoptica.metrics import Metric
from panoptica.panoptica_result import PanopticaResult
from tests.reference.agreement_masks import PAIRS, MaskPair
from tests.reference.stored_results import write


def overlapping(pair: MaskPair) -> bool:
    """Whether it has a voxel in common; else HD95, NSD and the evaluation by region raise NotImplementedError."""
    return bool((pair.reference & pair.prediction).any())


def distances(pair: MaskPair) -> tuple[Metric, ...]:
    """What can be asked for."""
    return (Metric.ASSD, Metric.HD95, Metric.NSD) if overlapping(pair) else (Metric.ASSD,)


def evaluate(pair: MaskPair, *, threshold: float, by_region: bool = False) -> PanopticaResult:
    """One pair as masks of one class."""
    matched = NaiveThresholdMatching(matching_metric=Metric.IOU, matching_threshold=threshold)
    evaluator = Panoptica_Evaluator(
        expected_input=InputType.SEMANTIC,
        instance_approximator=ConnectedComponentsInstanceApproximator(),
        instance_matcher=matched,
        instance_metrics=[Metric.DSC, Metric.IOU, Metric.ASSD],
        global_metrics=[Metric.DSC, Metric.IOU, *(() if by_region else distances(pair))],
        per_region_evaluation=by_region,
    )
    masks = (pair.prediction.astype(np.uint8), pair.reference.astype(np.uint8))
    return evaluator.evaluate(*masks, voxelspacing=pair.spacing, verbose=False)["ungrouped"]


def results_of(pair: MaskPair) -> dict[str, float]:
    """Instances matched from an IoU of one half and of one tenth on, the whole masks, and Dice by region."""
    half, tenth = evaluate(pair, threshold=0.5), evaluate(pair, threshold=0.1)
    names = ("tp", "fp", "fn", "rq", "sq", "pq", "sq_assd", "global_bin_dsc", "global_bin_iou")
    whole = [f"global_bin_{metric.name.lower()}" for metric in distances(pair)]
    found = {name: getattr(half, name) for name in (*names, *whole)}
    found |= {f"{name}_from_a_tenth": getattr(tenth, name) for name in ("tp", "fp", "fn", "sq")}
    if overlapping(pair):
        found["region_avg_dsc"] = evaluate(pair, threshold=0.5, by_region=True).region_avg_dsc
    return found


if __name__ == "__main__":
    write(
        Path(__file__).with_name("panoptica.json"),
        package=f"panoptica {version('panoptica')}",
        made_by="tests/reference/make_panoptica.py",
        results={pair.name: results_of(pair) for pair in PAIRS},
    )

"""The table of regions knows what post-processing will come to: held against the voxels themselves."""

import math

import numpy as np
import pytest
import torch

from segkit.errors import DataError
from segkit.evaluation.prediction_regions import CaseFacts, classes_after, joined, regions_of, regions_of_case
from segkit.inference.postprocessing import ClassRule, PostProcessing
from segkit.ops.confusion import confusion
from segkit.types import Labels

LABELS = Labels(("background", "a", "b", "c"), (0, 1, 2, 3))
ORGAN = np.array(
    [
        [1, 1, 1, 0, 2],
        [1, 0, 1, 0, 0],
        [1, 1, 1, 0, 1],
        [0, 0, 0, 1, 0],
    ],
    dtype=np.int16,
)


def facts(case_id="x", spacing=(1.0, 1.0)):
    return CaseFacts(case_id, case_id, f"content of {case_id}", spacing)


def drawn(seed):
    """Prediction, reference (some of it ignored) and spacing at random; two axes or three."""
    rng = np.random.default_rng(seed)
    dimensions = 2 + seed % 2
    shape = tuple(rng.integers(1, 12 if dimensions == 2 else 7, dimensions))
    prediction = rng.choice(4, size=shape, p=[0.4, 0.35, 0.15, 0.1]).astype(np.int16)
    reference = rng.integers(-1, 4, shape).astype(np.int16)
    return prediction, reference, tuple(rng.uniform(0.3, 2, dimensions).tolist())


def rules_drawn(seed, voxel):
    rng = np.random.default_rng((seed, 1))
    rules = tuple(
        ClassRule(
            name,
            min_mm3=float(rng.choice([0, 1.5, 2, 4]) * voxel),
            keep="largest" if rng.random() < 0.5 else "all",
            holes="fill" if rng.random() < 0.5 else "leave",
        )
        for name in rng.permutation(["a", "b", "c"])[: rng.integers(0, 4)].tolist()
    )
    foreground = "largest" if rng.random() < 0.4 else "all"
    return PostProcessing(rules, foreground, "full" if rng.random() < 0.6 else "faces")


def counts_of(regions, rules):
    return [table[:, 1:] for table in regions.confusion(classes_after(regions, rules, LABELS.names))]


def test_regions_by_hand():
    reference = np.where(ORGAN == 1, 1, 0).astype(np.int16)
    reference[0, 4] = -1
    reference[1, 1] = 1
    regions = regions_of(ORGAN, reference, facts(), num_classes=3)
    # The hole of the ring, three pieces of the background outside, two voxels of class 1, the ring, class 2.
    found = sorted(zip(regions.label.tolist(), regions.voxels.tolist(), regions.outside.tolist(), strict=True))
    outside = [(0, 1, True), (0, 3, True), (0, 4, True), (1, 1, True), (1, 1, True), (1, 8, True), (2, 1, True)]
    assert found == [(0, 1, False), *outside]
    assert regions.reference.tolist() == [[8, 11, 0]]
    component = regions.components["full"]
    assert len({component[k] for k in np.flatnonzero(regions.label == 1)}) == 1  # corners join all of class 1
    assert len({regions.components["faces"][k] for k in np.flatnonzero(regions.label == 1)}) == 3
    tp, fp, fn = counts_of(regions, PostProcessing())
    assert (tp.tolist(), fp.tolist(), fn.tolist()) == ([[10, 0]], [[0, 0]], [[1, 0]])
    filled = counts_of(regions, PostProcessing((ClassRule("a", holes="fill"),)))
    assert [table.tolist() for table in filled] == [[[11, 0]], [[0, 0]], [[0, 0]]]


@pytest.mark.parametrize("seed", range(30))
def test_the_table_counts_what_the_voxels_count_after_applying(seed):
    prediction, reference, spacing = drawn(seed)
    regions = regions_of(prediction, reference, facts(spacing=spacing), num_classes=4)
    for draw in range(4):
        rules = rules_drawn((seed, draw), math.prod(spacing))
        applied = rules.apply(prediction, spacing=spacing, labels=LABELS)
        expected = confusion(
            torch.from_numpy(applied.astype(np.int64)), torch.from_numpy(reference.astype(np.int64)), 4
        )
        for table, counts in zip(counts_of(regions, rules), (expected.tp, expected.fp, expected.fn), strict=True):
            np.testing.assert_array_equal(table[0], counts[1:].numpy())


def test_many_cases_in_one_table_are_each_alone():
    cases = [(*drawn(seed), f"case {seed}") for seed in range(0, 16, 2)]
    tables = [
        regions_of(prediction, reference, facts(name, spacing), num_classes=4)
        for prediction, reference, spacing, name in cases
    ]
    together = joined(tables)
    assert [case.case_id for case in together.cases] == [name for *_, name in cases]
    for draw in range(6):
        rules = rules_drawn((99, draw), 1.0)
        apart = [counts_of(table, rules) for table in tables]
        for k, table in enumerate(counts_of(together, rules)):
            np.testing.assert_array_equal(table, np.concatenate([one[k] for one in apart]))
    with pytest.raises(ValueError, match="no table"):
        joined([])


def test_nothing_predicted_is_a_case_too():
    reference = np.array([[0, 1], [-1, 1]], dtype=np.int16)
    nothing = regions_of(np.zeros((2, 2), dtype=np.int16), reference, facts("empty"), num_classes=4)
    other = regions_of(ORGAN, np.zeros_like(ORGAN), facts("other"), num_classes=4)
    tp, fp, fn = counts_of(
        joined([nothing, other]), PostProcessing((ClassRule("a", 3.0, "largest", "fill"),), "largest")
    )
    assert tp.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert fp.tolist() == [[0, 0, 0], [11, 0, 0]]
    assert fn.tolist() == [[2, 0, 0], [0, 0, 0]]


def test_of_a_prepared_case(made):
    label = made.boxes((9, 8, 7))
    case = made.case(
        label, case_id="a", group="anna", content="abc", way_back=made.geometry(label.shape, spacing=(1.0, 2.0, 3.0))
    )
    regions = regions_of_case(label, case, num_classes=3)
    assert regions.cases == (CaseFacts("a", "anna", "abc", (1.0, 2.0, 3.0)),)
    tp, fp, fn = regions.confusion(regions.label)
    assert tp[0, 1:].tolist() == [np.count_nonzero(label == 1), np.count_nonzero(label == 2)]
    assert not fp[0, 1:].any()
    assert not fn[0, 1:].any()


def test_faults_name_the_case(made):
    label = made.boxes((5, 5))
    with pytest.raises(DataError, match="differ in shape"):
        regions_of(label, label[:4], facts("x"), num_classes=3)
    with pytest.raises(DataError, match="not a class"):
        regions_of(label, label + 1, facts("x"), num_classes=2)

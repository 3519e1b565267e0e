"""Means over cases: nothing dropped, and nothing that gets better by finding less."""

import json
import math

import numpy as np
import pytest

from segkit.evaluation import DetailSettings, detail_case, summarise_details
from segkit.metrics.lesion import LesionSettings
from segkit.types import Labels

LABELS = Labels(names=("background", "lesion"), ids=(0, 1))
SETTINGS = DetailSettings(size_edges=(0.0, 4.0, 20.0))


def blobs(seed, number=3, shape=(24, 24)):
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, dtype=np.int16)
    for _ in range(number):
        x, y = rng.integers(0, 20, 2)
        mask[x : x + rng.integers(1, 5), y : y + rng.integers(1, 5)] = 1
    return mask


def details(pairs):
    return [
        detail
        for index, (prediction, reference) in enumerate(pairs)
        for detail in detail_case(
            prediction,
            reference,
            case_id=f"c{index}",
            group=f"p{index}",
            spacing=(1.0, 2.0),
            labels=LABELS,
            settings=SETTINGS,
        )
    ]


def summary(pairs):
    return summarise_details(details(pairs), LABELS, SETTINGS, unit="mm", dimensions=2)


def pairs(number=7):
    """A prediction that is the reference moved, with something left out and something invented."""
    return [(np.roll(blobs(k), 1, axis=0) | blobs(100 + k, number=1), blobs(k)) for k in range(number)]


def means(found):
    """Every mean that is reported over all cases, turned so that larger is better."""
    surface, volume, lesion = found.surfaces[0], found.volumes[0], found.lesions[0]
    return {
        "hd95": -surface.hd95.mean,
        "assd": -surface.assd.mean,
        "nsd": surface.nsd.mean,
        "volume": volume.similarity.mean,
        **{name: interval.mean for name, interval in lesion.by_case.items()},
    }


def test_removing_predictions_one_by_one_never_improves_a_mean():
    cases = pairs()
    before = means(summary(cases))
    for index in range(len(cases)):
        cases[index] = (np.zeros_like(cases[index][0]), cases[index][1])
        after = means(summary(cases))
        assert all(after[name] <= before[name] for name in before), (index, before, after)
        before = after
    assert before["nsd"] == before["f1"] == before["volume"] == 0.0
    assert -before["hd95"] == pytest.approx(math.hypot(24, 48))


def test_a_mean_over_the_pairs_alone_would_improve_and_says_what_it_leaves_out():
    good, bad = pairs(2)
    far = np.zeros_like(bad[0])
    far[0, 0] = 1
    with_both = summary([good, (far, bad[1])]).surfaces[0]
    without = summary([good, (np.zeros_like(far), bad[1])]).surfaces[0]
    assert without.hd95_where_both.mean < with_both.hd95_where_both.mean
    assert (without.missed, without.hd95_where_both.n, without.hd95.n) == (1, 1, 2)
    assert without.hd95.mean > with_both.hd95.mean


def test_cases_without_the_class_are_counted_and_not_averaged():
    empty = np.zeros((24, 24), dtype=np.int16)
    found = summary([*pairs(3), (empty, empty), (blobs(5), empty)])
    surface, lesion = found.surfaces[0], found.lesions[0]
    assert (surface.missed, surface.invented) == (0, 1)
    assert surface.nsd.n == 4  # the one that is nowhere is not applicable; the invented one counts 0
    assert lesion.by_case["f1"].n == 3
    assert lesion.counts["invented"] >= 1
    assert found.volumes[0].similarity.n == 3
    assert found.volumes[0].bias.n == 4


def test_lesions_by_hand():
    reference, prediction = np.zeros((2, 24, 24), dtype=np.int16)
    reference[1, 1:3], reference[5:8, 5:9], reference[20, 20] = 1, 1, 1  # 2, 12 and 1 voxels: 4, 24 and 2 mm^2
    prediction[1, 1:3], prediction[5:8, 5:8], prediction[14, 2:7] = 1, 1, 1  # 2, 9 and 5 voxels
    found = summary([(prediction, reference)]).lesions[0]
    assert found.by_case["recall"].mean == pytest.approx(2 / 3)
    assert found.by_case["precision"].mean == pytest.approx(2 / 3)
    assert found.by_case["panoptic_quality"].mean == pytest.approx((1 + 0.75) / 3)
    assert found.pooled == {name: pytest.approx(2 / 3) for name in ("f1", "recall", "precision")}
    assert found.recall_by_size == ((0.0, 0, 1), (4.0, 1, 1), (20.0, 1, 1))
    assert found.false_by_size == ((0.0, 0, 0), (4.0, 1, 3), (20.0, 0, 0))
    assert found.invented_size == 10.0
    assert (found.counts["found"], found.counts["missed"], found.counts["invented"]) == (2, 1, 1)
    assert found.ceiling is None


def test_pooled_counts_are_sums():
    cases = pairs()
    pooled = summary(cases).lesions[0].pooled
    matched = [one.detection for one in details(cases)]
    tp, fp, fn = (sum(getattr(one, name) for one in matched) for name in ("tp", "fp", "fn"))
    assert pooled["recall"] == pytest.approx(tp / (tp + fn))
    assert pooled["precision"] == pytest.approx(tp / (tp + fp))
    assert pooled["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))


def test_order_does_not_matter_and_json_is_clean():
    found = details(pairs())
    forwards, backwards = (
        summarise_details(d, LABELS, SETTINGS, unit="mm", dimensions=2) for d in (found, found[::-1])
    )
    assert forwards.to_dict() == backwards.to_dict()
    empty = np.zeros((24, 24), dtype=np.int16)
    for record in (forwards.to_dict(), summary([(empty, blobs(1))]).to_dict(), summary([(empty, empty)]).to_dict()):
        json.dumps(record, allow_nan=False)
    assert forwards.to_dict()["surface"]["lesion"]["nsd"]["tolerance_mm"] == 1.0


def test_what_is_printed_and_stored_names_the_unit_of_the_images():
    settings = DetailSettings(tolerance_mm=2.0, lesion=LesionSettings(min_mm3=3.0))
    found = details(pairs())
    for unit, dimensions, length, sizes in (
        ("mm", 3, "2 mm", "mm^3"),
        ("mm", 2, "2 mm", "mm^2"),
        ("pixel", 2, "2 pixels", "pixels"),
    ):
        of = summarise_details(found, LABELS, settings, unit=unit, dimensions=dimensions)
        assert of.to_dict()["size_unit"] == sizes
        assert of.rules["surface_tolerances"] == f"lesion {length}"
        assert f"NSD within {length};" in of.rules["surface_elements"]
        assert f"sizes in {sizes}," in of.rules["lesions"]
        assert f"and 3 {sizes};" in of.rules["lesion_matching"]
        lines = list(of.table())
        assert any(line.startswith(f"NSD within {length}; ") for line in lines)
        assert lines[-1] == of.rules["lesion_matching"]
        if unit == "pixel":
            assert " mm" not in "\n".join([*lines, *of.rules.values()])
    two = DetailSettings(tolerances={"lesion": 1.0})
    assert "NSD within 1 pixel; " in "\n".join(
        summarise_details(found, LABELS, two, unit="pixel", dimensions=2).table()
    )


def test_the_table_shows_what_was_missed_and_lesions_where_a_case_has_several():
    lines = "\n".join(summary([*pairs(), (np.zeros((24, 24), dtype=np.int16), blobs(3))]).table())
    assert "HD95 mm" in lines
    assert "NSD within 1 mm" in lines
    assert "HD95 where both are there" in lines
    assert "IoU >= 0.1" in lines
    square = np.zeros((24, 24), dtype=np.int16)
    square[4:9, 4:9] = 1
    assert "lesions of" not in "\n".join(summary([(square, square)]).table())

import csv
import json
import math

import numpy as np
import pytest

from segkit.evaluation.calibration import CaseCalibration
from segkit.evaluation.calibration_summary import COLUMNS, summarise_calibration, write_calibration_cases
from segkit.metrics.reliability import no_voxels, reliability
from segkit.metrics.uncertainty import mean_interval
from segkit.runs.files import write_json
from segkit.types import Labels

LABELS = Labels(("background", "a", "b"), (0, 1, 2))


def table(rng, frequency):
    p = rng.uniform(0.2, 0.8, 50)
    return reliability(p, rng.random(50) < frequency)


@pytest.fixture
def results():
    """Twelve cases of eleven people; class b only in the first eight, nothing at all in the last."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(12):
        empty = i == 11
        tables = [[no_voxels() if empty or (k and i >= 8) else table(rng, f) for k in range(2)] for f in (0.2, 0.5)]
        dice = [math.nan if empty else 0.5 + 0.04 * i, math.nan if i >= 8 else 0.6]
        made.append(
            CaseCalibration(
                case_id=f"c{i:02d}",
                group=f"p{i // 2 * 2 if i < 2 else i}",
                voxels=0 if empty else 90,
                nll=(math.nan, math.nan) if empty else (1.0 + i / 10, 0.5 + i / 20),
                before=tuple(tables[0]),
                after=tuple(tables[1]),
                dice=np.array(dice),
                estimate=np.array(dice) + 0.1,
            )
        )
    return made


def test_numbers_by_hand(results):
    found = summarise_calibration(list(reversed(results)), LABELS)
    groups = [result.group for result in results]
    for k, one in enumerate(found.classes):
        before, after = ([getattr(r, side)[k] for r in results] for side in ("before", "after"))
        for name in ("ece", "brier"):
            a, b = (np.array([getattr(t, name) for t in tables]) for tables in (before, after))
            change = getattr(one, name)
            assert change.before == mean_interval(a, groups, bounds=(0.0, 1.0))
            assert change.after.mean == pytest.approx(np.nanmean(b))
            assert change.change.mean == pytest.approx(np.nanmean(b - a))
        assert one.not_applicable == (1, 4)[k]
        assert one.ece.before.n == 12 - one.not_applicable
    assert found.nll.before.mean == pytest.approx(1.5)
    assert found.nll.change.mean == pytest.approx(-0.75)
    assert found.error.mean == pytest.approx(0.1)
    assert (found.quality.n, found.quality.n_groups) == (11, 10)
    assert found.quality.rho == pytest.approx(1)
    assert (found.n_cases, found.n_groups) == (12, 11)
    text = "\n".join(found.table())
    assert f"{found.classes[0].ece.before.mean:.3f}" in text
    assert "Spearman 1.00 [none] n=11 groups=10" in text


def test_files_hold_the_same_numbers(results, tmp_path):
    found = summarise_calibration(results, LABELS)
    write_json(tmp_path / "calibration.json", found.to_dict())
    stored = json.loads((tmp_path / "calibration.json").read_text())
    assert stored["classes"]["b"]["ece"]["before"]["mean"] == found.classes[1].ece.before.mean
    assert stored["classes"]["b"]["not_applicable"] == 4
    assert stored["quality"]["interval"] is None
    shares = [row["share"] for row in stored["classes"]["a"]["reliability"]["after"]]
    assert sum(shares) == pytest.approx(1)
    write_calibration_cases(tmp_path / "t" / "cases.csv", results, LABELS)
    with (tmp_path / "t" / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["class"] for row in rows[:3]] == ["a", "b", "all"]
    assert len(rows) == 36
    eces = [float(row["ece_before"]) for row in rows if row["class"] == "a" and row["ece_before"]]
    assert np.mean(eces) == pytest.approx(found.classes[0].ece.before.mean)
    last = {row["class"]: row for row in rows if row["case_id"] == "c11"}
    assert (last["all"]["voxels"], last["all"]["dice"], last["a"]["ece_after"]) == ("0", "", "")
    whole = [float(row["dice_estimate"]) - float(row["dice"]) for row in rows if row["class"] == "all" and row["dice"]]
    assert np.mean(whole) == pytest.approx(0.1)

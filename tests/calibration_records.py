"""A calibration as `calibrate` writes it, made from tables of chosen probabilities by the library's own summary."""

import numpy as np

from segkit.evaluation.calibration import CaseCalibration
from segkit.evaluation.calibration_summary import RULES, summarise_calibration, write_calibration_cases
from segkit.metrics.reliability import reliability
from segkit.runs.calibration import FILE, TABLE
from segkit.runs.files import write_json
from segkit.types import Labels

LABELS = Labels(("background", "front", "back"), (0, 1, 2))


def calibrated_cases(number=12):
    """Cases whose voxels are right nine times of ten, given 0.99 before and 0.9 after; Dice and its estimate agree."""
    truth = np.arange(100) % 10 != 0
    before, after = (reliability(np.full(100, p), truth) for p in (0.99, 0.9))
    weak = reliability(np.linspace(0.05, 0.95, 100), np.arange(100) >= 50)
    return [
        CaseCalibration(
            case_id=f"case_{k:02d}",
            group=f"person_{k:02d}",
            voxels=100,
            nll=(0.5, 0.4),
            before=(before, weak),
            after=(after, weak),
            dice=np.array([0.6 + k / 50, 0.8]),
            estimate=np.array([0.5 + k / 40, 0.8]),
        )
        for k in range(number)
    ]


def calibration_record(runs, *, checkpoint=10, cases=None):
    """calibration.json of these runs."""
    summary = summarise_calibration(calibrated_cases() if cases is None else cases, LABELS)
    return {
        "temperature": 1.5,
        "interval": [1.4, 1.6],
        "models": [{"run": run, "checkpoint": checkpoint, "step": 0.5, "mirror_axes": []} for run in runs],
        "precision": "32-true",
        "margin": 5.0,
        "unit": "mm",
        "fit": {"cases_are": "tuning cases", "n_cases": 12, "n_groups": 11, "nll_before": 0.5, "nll_after": 0.4},
        "test": {"subset": "test"} | summary.to_dict(),
        "rules": RULES,
    }


def write_calibration(folder, runs, **facts):
    """Both files of a calibration; returns the record."""
    folder.mkdir(parents=True, exist_ok=True)
    cases = calibrated_cases()
    record = calibration_record(runs, cases=cases, **facts)
    write_calibration_cases(folder / TABLE, cases, LABELS)
    write_json(folder / FILE, record)
    return record

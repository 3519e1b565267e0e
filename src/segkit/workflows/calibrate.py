"""`calibrate`: one temperature for a run or an ensemble, fitted out of fold and tried on the test cases."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from segkit.data.layouts import discover
from segkit.data.sample import sample_root
from segkit.data.store import Store
from segkit.errors import DataError, UsageError
from segkit.evaluation.calibration import CaseCalibration, calibration_of_case, curve_of_case
from segkit.evaluation.calibration_summary import (
    RULES,
    CalibrationSummary,
    summarise_calibration,
    write_calibration_cases,
)
from segkit.evaluation.case import image_of
from segkit.metrics.temperature import TemperatureCurve, TemperatureFit, fit_temperature
from segkit.runs.calibration import FILE, TABLE
from segkit.runs.files import write_json
from segkit.runs.leftovers import sweep_abandoned
from segkit.types import Case, PreparedCase
from segkit.workflows.calibration_cases import MIN_CASES, CalibrationCases, choose_cases
from segkit.workflows.loading import TrainedRun, load_from, models_of
from segkit.workflows.members import require_compatible
from segkit.workflows.presenting import present


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` returns.

    Args:
        fit: Temperature with interval, likelihood of the fitting cases before and after.
        test: The numbers of the test cases.
        output: The folder of calibration.json.
    """

    fit: TemperatureFit
    test: CalibrationSummary
    output: Path

    @property
    def temperature(self) -> float:
        """T: probabilities are softmax(mean logits / T)."""
        return self.fit.temperature.mean


def run(config: dict[str, Any]) -> Calibration:
    """Fit a temperature, try it, write both.

    Args:
        config: Keys of configs/calibrate.yaml; `run` is one run or a list, whose logits are averaged.

    Raises:
        UsageError: No such run, runs that do not go together, or several without `output`.
        DataError: Cases that a model has seen, fewer than ten to fit on, or cases that are missing or have no label.
    """
    started = time.perf_counter()
    runs = config["run"] if isinstance(config["run"], list | tuple) else [config["run"]]
    if len(runs) > 1 and config.get("output") is None:
        why = "the temperature is that of the ensemble, and of none of its runs"
        raise UsageError("several runs need a folder of their own", where="output", why=why, mend="output=<folder>")
    members = [load_from(config, one) for one in runs]
    require_compatible(members)
    output = Path(config.get("output") or members[0].directory.path).expanduser().absolute()
    cache = config.get("paths", {}).get("cache")
    store = Store(members[0].prepared_cases if cache is None else Path(cache).expanduser().absolute())
    data = members[0].config["data"]
    root = config.get("data", {}).get("root") or data["root"] or sample_root()
    chosen = choose_cases(
        discover(root, layout=data["layout"], groups=data["groups"]).cases,
        [member.provenance for member in members],
        lambda case: store.content_hash(case.images),
        fit=config["fit"],
        test=config["test"],
        members=config["members"],
    )
    fit, left_out = _fit(members, chosen, store, margin=config["margin"])
    results = _try(members, chosen.test, store, temperature=fit.temperature.mean, margin=config["margin"])
    labels = members[0].plan.labels
    summary = summarise_calibration(results, labels)
    output.mkdir(parents=True, exist_ok=True)
    sweep_abandoned(output)
    # The temperature stands for all of it: it goes first and comes last, so that it never lies beside another table.
    (output / FILE).unlink(missing_ok=True)
    write_calibration_cases(output / TABLE, results, labels)
    write_json(output / FILE, _record(members, chosen, fit, summary, config, store=store, left_out=left_out))
    _print(members, chosen, fit, summary, left_out=left_out)
    print(f"{output / FILE}  ({time.perf_counter() - started:.1f} s)")
    present(output, trust=config.get("trust", False))
    return Calibration(fit, summary, output)


def _fit(
    members: Sequence[TrainedRun], chosen: CalibrationCases, store: Store, *, margin: float
) -> tuple[TemperatureFit, list[str]]:
    """The temperature, and the cases that said nothing of it: no foreground in their truth and none predicted.

    Raises:
        DataError: Fewer than ten cases are left.
    """
    curves: list[TemperatureCurve] = []
    groups: list[str] = []
    left_out: list[str] = []
    for number, (case, places) in enumerate(chosen.fit, start=1):
        logits, prepared = _logits([members[place] for place in places], case, store)
        curve = curve_of_case(logits, prepared, margin=margin)
        print(f"[{number}/{len(chosen.fit)}] fit {case.case_id}  {curve.n} voxels", flush=True)
        if curve.n == 0:
            left_out.append(case.case_id)
            continue
        curves.append(curve)
        groups.append(case.group)
    if len(curves) < MIN_CASES:
        raise DataError(
            f"a temperature is fitted on {MIN_CASES} cases or more",
            where=f"{len(chosen.fit)} fitting cases",
            why=f"in {len(left_out)} of them nothing is there and nothing was predicted",
            mend="train with a larger data.split.tuning",
        )
    return fit_temperature(curves, groups), left_out


def _try(
    members: Sequence[TrainedRun], cases: Sequence[Case], store: Store, *, temperature: float, margin: float
) -> list[CaseCalibration]:
    results = []
    for number, case in enumerate(cases, start=1):
        logits, prepared = _logits(members, case, store)
        result = calibration_of_case(logits, prepared, temperature=temperature, margin=margin)
        before, after = result.nll
        print(f"[{number}/{len(cases)}] test {case.case_id}  nll {before:.4f} -> {after:.4f}", flush=True)
        results.append(result)
    return results


def _logits(members: Sequence[TrainedRun], case: Case, store: Store) -> tuple[list[Tensor], PreparedCase]:
    """Logits of each member on its own grid, and the case with its native reference."""
    prepared = [store.get(case, member.plan) for member in members]
    return [member.predictor(image_of(one)) for member, one in zip(members, prepared, strict=True)], prepared[0]


def _record(
    members: Sequence[TrainedRun],
    chosen: CalibrationCases,
    fit: TemperatureFit,
    summary: CalibrationSummary,
    config: Mapping[str, Any],
    *,
    store: Store,
    left_out: Sequence[str],
) -> dict[str, Any]:
    names, t = [member.directory.name for member in members], fit.temperature
    fitted = [
        _case(case, store) | {"models": [names[place] for place in places]}
        for case, places in chosen.fit
        if case.case_id not in left_out
    ]
    return {
        "temperature": t.mean,
        "interval": [t.low, t.high] if t.published else None,
        "models": models_of(members),
        "precision": members[0].predictor.precision,
        "margin": config["margin"],
        "unit": members[0].plan.unit,
        "fit": {
            "cases_are": chosen.note,
            "n_cases": t.n,
            "n_groups": t.n_groups,
            "nll_before": fit.nll_before,
            "nll_after": fit.nll_after,
            "models_a_case": _range([len(places) for _, places in chosen.fit]),
            "left_out": list(left_out),
        },
        "test": {"subset": config["test"]} | summary.to_dict(),
        "rules": RULES,
        "fitting_cases": fitted,
        "test_cases": [_case(case, store) for case in chosen.test],
        "note": "Research software, not a medical device.",
    }


def _case(case: Case, store: Store) -> dict[str, Any]:
    return {"case_id": case.case_id, "group": case.group, "content_hash": store.content_hash(case.images)}


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def _print(
    members: Sequence[TrainedRun],
    chosen: CalibrationCases,
    fit: TemperatureFit,
    summary: CalibrationSummary,
    *,
    left_out: Sequence[str],
) -> None:
    t = fit.temperature
    interval = f" [{t.low:.3f}, {t.high:.3f}]" if t.published else ""
    print()
    print(f"temperature {t.mean:.3f}{interval}, fitted on {t.n} cases of {t.n_groups} groups")
    print(f"  {chosen.note}")
    if left_out:
        print(f"  left out, nothing there and nothing predicted: {', '.join(left_out)}")
    if (by := _range([len(places) for _, places in chosen.fit])) != str(len(members)):
        print(f"  predicted by {by} of {len(members)} models a case: the mean of all is less sure, T rather too high")
    print(f"  negative log-likelihood {fit.nll_before:.4f} -> {fit.nll_after:.4f} nats a voxel")
    print(f"tried on {summary.n_cases} cases of {summary.n_groups} groups")
    for line in summary.table():
        print(line)

"""Numbers that a verb has written into a folder after its training, as metrics: of an evaluation, of a calibration.

Each mean goes with what it is worth: `test/dice`, its 95 % interval `test/dice_low` and `test/dice_high` where one is
published, and `test/dice_n`, the number of cases; of a class `test/dice/CLASS`, `test/dice_low/CLASS`, ...

A further row of an evaluation stands beside the plain one under its own name, `test/mirrored/dice` or
`test/postprocessed/dice`, with the paired difference to it, `test/mirrored/dice_difference`.
"""

import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from mlflow import MlflowClient
from mlflow.entities import Metric

from segkit.evaluation.comparison_files import COMPARISON, compared_rows
from segkit.metrics.lesion_detection import are_lesions
from segkit.runs.calibration import FILE as CALIBRATION
from segkit.runs.directory import RunDirectory
from segkit.runs.files import read_json
from segkit.runs.sweep import SweepDirectory
from segkit.tracking.names import plain_key

SEEN = "SEEN CASES"
_SUMMARY = "summary.json"
_AT_ONCE = 1000  # as many as MLflow takes in a request
_LESIONS = {"f1": "lesion_f1", "recall": "lesion_recall", "precision": "lesion_precision"}
"""What is called otherwise here than in its table, where the same words stand for voxels."""
_logger = logging.getLogger(__name__)
_Values: TypeAlias = Iterator[tuple[str, float]]


@dataclass(frozen=True)
class Scores:
    """What one file says.

    Args:
        values: By key.
        step: MLflow's step of all of them.
        at: When the file was written, ms since 1970.
    """

    values: Mapping[str, float]
    step: int
    at: int


def scores_of_run(run: RunDirectory) -> list[Scores]:
    """What `evaluate` has found on the test cases, at the epoch of the checkpoint, and `calibrate`, at its step."""
    test = run.evaluation / "test"
    found = [
        *_rows(test, "test", step=lambda summary: int(summary["checkpoint"]["epoch"])),
        _read(run.path / CALIBRATION, lambda record: _calibration_of(run.name, record)),
    ]
    return [scores for scores in found if scores is not None]


def scores_of_sweep(sweep: SweepDirectory) -> list[Scores]:
    """What was found out of fold, by the ensemble on held-out people, and of the calibration of the runs' mean."""
    found = [
        *_rows(sweep.evaluation / "test", "out_of_fold", step=lambda _: 0),
        *_rows(sweep.evaluation / "held_out", "held_out", step=lambda _: 0),
        _read(sweep.path / CALIBRATION, lambda record: (_calibration(record), 0)),
    ]
    return [scores for scores in found if scores is not None]


def send_scores(client: MlflowClient, run_id: str, found: Iterable[Scores]) -> int:
    """Send each once; those of a later evaluation follow, and are the latest ones.

    Args:
        client: Of the store.
        run_id: MLflow run of the copy.
        found: See `scores_of_run` and `scores_of_sweep`.

    Returns:
        The number of points sent.
    """
    there = client.get_run(run_id).data.metrics
    new = [
        Metric(plain_key(key), value, scores.at, scores.step)
        for scores in found
        for key, value in scores.values.items()
        if there.get(plain_key(key)) != value
    ]
    for start in range(0, len(new), _AT_ONCE):
        client.log_batch(run_id, metrics=new[start : start + _AT_ONCE])
    return len(new)


def _rows(folder: Path, prefix: str, *, step: Callable[[Mapping[str, Any]], int]) -> Iterator[Scores | None]:
    """The plain evaluation of a folder, then the rows beside it, each under its own name."""
    yield _read(folder / _SUMMARY, lambda summary: (_evaluation(summary, prefix), step(summary)))
    for row in compared_rows(folder):
        yield _read(row / _SUMMARY, partial(_row, row, f"{prefix}/{row.name}", step))


def _row(
    folder: Path, prefix: str, step: Callable[[Mapping[str, Any]], int], summary: Mapping[str, Any]
) -> tuple[_Values, int]:
    difference = _difference(read_json(folder / COMPARISON), prefix)
    return itertools.chain(_evaluation(summary, prefix), difference), step(summary)


def _difference(comparison: Mapping[str, Any], prefix: str) -> _Values:
    """Of each class, and of their mean, which is the last row where there are several."""
    rows = comparison["rows"]
    for suffix, row in [("", rows[-1]), *((f"/{row['class']}", row) for row in rows[:-1] or rows)]:
        yield from _all({f"{row['metric']}_difference": row | {"mean": row["difference"]}}, prefix, suffix)


def _read(path: Path, parse: Callable[[dict[str, Any]], tuple[_Values, int]]) -> Scores | None:
    """The scores of a file; None where there is none, where it cannot be understood, and where cases were seen.

    Scores of cases that the model has seen are never among them: they go as files, which say so.
    """
    try:
        record = read_json(path)
        if record.get("label") == SEEN:
            return None
        values, step = parse(record)
        finite = {key: float(value) for key, value in values if _is_finite(value)}
        return Scores(finite, step, int(path.stat().st_mtime * 1000))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        _logger.warning("the scores in %s cannot be understood, and are not sent: %r", path, error)
        return None


def _evaluation(summary: Mapping[str, Any], prefix: str) -> _Values:
    yield f"{prefix}/score", summary["score"]
    yield from _all(summary["mean"], prefix)
    for table in ("classes", "surface", "lesions"):
        for name, metrics in summary.get(table, {}).items():
            if table != "lesions":
                yield from _all(metrics, prefix, f"/{name}")
            elif are_lesions(metrics["counts"]["reference"], metrics["f1"]["n"]):
                yield from _all(
                    {_LESIONS.get(metric, metric): of for metric, of in metrics.items()}, prefix, f"/{name}"
                )
            for count in ("missed", "invented"):
                if count in metrics:
                    yield f"{prefix}/{count}/{name}", metrics[count]


def _calibration_of(run: str, record: Mapping[str, Any]) -> tuple[_Values, int]:
    """Of the run's own calibration; nothing where that of an ensemble lies in its folder."""
    models = record["models"]
    if [model["run"] for model in models] != [run]:
        return iter(()), 0
    return _calibration(record), int(models[0]["checkpoint"])


def _calibration(record: Mapping[str, Any]) -> _Values:
    fit, test = record["fit"], record["test"]
    temperature = {"mean": record["temperature"], "interval": record["interval"], "n": fit["n_cases"]}
    quality = test["quality"]
    named = {
        "temperature": temperature,
        "nll_before": test["nll"]["before"],
        "nll_after": test["nll"]["after"],
        "quality_spearman": quality | {"mean": quality["spearman"]},
        "quality_error": quality["error"],
    }
    yield from _all(named, "calibration")
    for metric in ("ece", "brier"):
        for when in ("before", "after"):
            by_class = {name: of[metric][when] for name, of in test["classes"].items()}
            for name, of in by_class.items():
                yield from _all({f"{metric}_{when}": of}, "calibration", f"/{name}")
            means = [of["mean"] for of in by_class.values() if _is_finite(of["mean"])]
            if means:
                yield f"calibration/{metric}_{when}", math.fsum(means) / len(means)


def _all(metrics: Mapping[str, Any], prefix: str, suffix: str = "") -> _Values:
    """Means with limits and number of cases; what is no mean is passed over."""
    for metric, of in metrics.items():
        if not isinstance(of, dict) or "mean" not in of:
            continue
        yield f"{prefix}/{metric}{suffix}", of["mean"]
        for name, limit in zip(("low", "high"), of.get("interval") or (), strict=False):
            yield f"{prefix}/{metric}_{name}{suffix}", limit
        if "n" in of:
            yield f"{prefix}/{metric}_n{suffix}", of["n"]


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)

"""Scores of the test cases, as `evaluate` has written them into the run folder."""

import logging
import math
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric

from segkit.runs.directory import RunDirectory
from segkit.runs.files import read_json
from segkit.tracking.names import plain_key

_SEEN = "SEEN CASES"
_logger = logging.getLogger(__name__)


def send_scores(client: MlflowClient, run: RunDirectory, run_id: str) -> None:
    """Send them once; those of a later evaluation follow, and are the latest ones.

    Args:
        client: Of the store.
        run: The run folder.
        run_id: MLflow run of the copy.
    """
    if (found := scores_on_test(run)) is None:
        return
    epoch, scores = found
    there = client.get_run(run_id).data.metrics
    now = int(_summary(run).stat().st_mtime * 1000)
    new = {plain_key(key): value for key, value in scores.items() if there.get(plain_key(key)) != value}
    if new:
        client.log_batch(run_id, metrics=[Metric(key, value, now, epoch) for key, value in new.items()])


def scores_on_test(run: RunDirectory) -> tuple[int, dict[str, float]] | None:
    """Epoch of the checkpoint and scores of the test cases by `test/...`; None where they were not evaluated.

    Scores of cases that the model has seen are never among them: they go as files, which say so.
    """
    try:
        summary = read_json(_summary(run))
        if summary.get("label") == _SEEN:
            return None
        found = {"test/score": summary["score"]}
        found |= {f"test/{metric}": interval["mean"] for metric, interval in summary["mean"].items()}
        for table in ("classes", "surface"):
            for name, metrics in summary.get(table, {}).items():
                means = {m: of["mean"] for m, of in metrics.items() if isinstance(of, dict) and "mean" in of}
                found |= {f"test/{m}/{name}": mean for m, mean in means.items()}
        epoch = int(summary["checkpoint"]["epoch"])
        return epoch, {key: float(value) for key, value in found.items() if _is_finite(value)}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _logger.warning("the scores in %s cannot be understood, and are not sent: %r", _summary(run), error)
        return None


def _summary(run: RunDirectory) -> Path:
    return run.path / "evaluation" / "test" / "summary.json"


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)

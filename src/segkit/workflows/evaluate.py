"""`evaluate`: score a run, the runs of a cross-validation, or any two folders of masks."""

from typing import Any

from segkit.errors import UsageError
from segkit.evaluation import Summary
from segkit.workflows.evaluate_folders import evaluate_folders
from segkit.workflows.evaluate_folds import evaluate_folds, runs_below
from segkit.workflows.evaluate_run import evaluate_run


def run(config: dict[str, Any]) -> Summary:
    """Score what is named.

    Args:
        config: Keys of configs/evaluate.yaml.

    Returns:
        The numbers, which are also printed and written.

    Raises:
        UsageError: Neither a run nor a folder of masks is named, or both; no such run; cases that a run has seen.
        DataError: Cases that are missing, have no label, or have the content of cases a run has seen.
    """
    of_run, of_masks = (config.get(key) is not None for key in ("run", "predictions"))
    if of_run == of_masks:
        raise UsageError(
            "evaluate scores a run, or a folder of masks",
            where="run, predictions",
            why="both are given" if of_run else "neither is given",
            mend="run=RUN, or predictions=FOLDER reference=FOLDER",
        )
    if of_masks:
        return evaluate_folders(config)
    folds = runs_below(config["run"])
    return evaluate_folds(config, folds) if folds else evaluate_run(config, config["run"]).numbers.summary

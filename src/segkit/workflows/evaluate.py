"""`evaluate`: score a run, several as one, the runs of a cross-validation, or any two folders of masks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segkit.errors import UsageError
from segkit.evaluation import Summary
from segkit.runs.sweep import open_sweep
from segkit.workflows.evaluate_ensemble import evaluate_ensemble
from segkit.workflows.evaluate_folders import evaluate_folders
from segkit.workflows.evaluate_folds import evaluate_folds
from segkit.workflows.evaluate_postprocessing import (
    FIT,
    TUNING,
    asked_for,
    fit_scored,
    require_fitting_cases,
    require_run,
)
from segkit.workflows.evaluate_run import evaluate_run
from segkit.workflows.presenting import present


def run(config: dict[str, Any]) -> Summary:
    """Score what is named.

    Args:
        config: Keys of configs/evaluate.yaml; `run` is one run or a list, which are averaged.

    Returns:
        The numbers, which are also printed and written.

    Raises:
        UsageError: Neither a run nor a folder of masks is named, or both; no such run; cases that a run has seen, or
            that rules cannot be fitted on; no rules to try.
        DataError: Cases that are missing, have no label, or have the content of cases that a run has seen or rules
            were fitted on; too few of them to fit rules on.
    """
    runs = _listed(config.get("run"))
    of_run, of_masks = bool(runs), config.get("predictions") is not None
    if of_run == of_masks:
        raise UsageError(
            "evaluate scores a run, or a folder of masks",
            where="run, predictions",
            why="both are given" if of_run else "neither is given",
            mend="run=RUN, or predictions=FOLDER reference=FOLDER",
        )
    if of_masks:
        require_run(config)
        return evaluate_folders(config)
    sweep = open_sweep(runs[0]) if len(runs) == 1 else None
    folds = () if sweep is None else tuple(run.path for run in sweep.runs)
    require_fitting_cases(config, runs, folds)
    if len(runs) > 1:
        return evaluate_ensemble(config, runs).numbers.summary
    if sweep is None:
        done = evaluate_run(config, runs[0])
        folder = done.trained.directory.path
        if asked_for(config) == FIT:
            fit_scored([done.trained], done.regions, average=done.members.average, cases_are=TUNING, output=folder)
        present(folder, trust=config.get("trust", False))
        return done.numbers.summary
    if config["subset"] == "held_out":
        output = config.get("output") or sweep.evaluation / "held_out"
        summary = evaluate_ensemble({**config, "output": output}, folds).numbers.summary
        present(sweep.path, trust=config.get("trust", False))
        return summary
    return evaluate_folds(config, folds)


def _listed(run: str | Path | Sequence[str | Path] | None) -> list[str | Path]:
    if run is None:
        return []
    return [run] if isinstance(run, str | Path) else list(run)

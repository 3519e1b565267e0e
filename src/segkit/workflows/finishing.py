"""What is made of the selected checkpoint: scores of the tuning cases, their overlays, the curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from segkit.data.stored_case import StoredCase
from segkit.evaluation import CaseResult, evaluate_case, write_per_case
from segkit.reporting.curves import draw_curves
from segkit.runs.directory import RunDirectory
from segkit.types import Case, PreparedCase
from segkit.workflows.loading import TrainedRun, load
from segkit.workflows.native_overlay import draw_native

MARK = "selection score (optimistic)"
"""What every score on a tuning case is called."""


def score_tuning(trained: TrainedRun, tuning: Sequence[tuple[Case, StoredCase]], *, overlays: int) -> list[CaseResult]:
    """Score the tuning cases by the selected checkpoint: per_case.csv, and overlays of some from the same predictions.

    Args:
        trained: The run with the selected weights.
        tuning: Its cases: their files, and as prepared.
        overlays: How many are drawn.
    """
    drawn = _first(tuning, overlays)
    results = []
    for case, stored in tuning:
        prepared = stored.load()
        result = evaluate_case(trained.predictor, prepared, trained.settings)
        if case.case_id in drawn:
            _draw(trained, case, prepared, result, folder=trained.directory.overlays)
        results.append(result.without_arrays())
    if results:
        write_per_case(trained.directory.per_case, results, trained.plan.labels, note=MARK)
    return results


def draw_snapshot(
    directory: RunDirectory, config: Mapping[str, Any], tuning: Sequence[tuple[Case, StoredCase]]
) -> None:
    """Curves so far, and overlays by the weights of the last checkpoint, in a folder named by its epoch."""
    trained = load(directory.path, checkpoint="last", accelerator=config["trainer"]["accelerator"], trust=True)
    draw_run_curves(directory)
    drawn = _first(tuning, config["overlays"]["cases"])
    folder = directory.overlays / f"epoch-{trained.selection.entry.epoch:04d}"
    for case, stored in tuning:
        if case.case_id in drawn:
            prepared = stored.load()
            result = evaluate_case(trained.predictor, prepared, trained.settings)
            _draw(trained, case, prepared, result, folder=folder)


def _first(tuning: Sequence[tuple[Case, StoredCase]], number: int) -> set[str]:
    """Ids of the cases that are drawn, the same ones each time."""
    return set(sorted(case.case_id for case, _ in tuning)[:number])


def _draw(trained: TrainedRun, case: Case, prepared: PreparedCase, result: CaseResult, *, folder: Path) -> None:
    dice = torch.tensor([float(row.overlap.dice) for row in result.rows]).nanmean()
    draw_native(
        case,
        prepared,
        result.prediction,
        labels=trained.plan.labels,
        path=folder / f"{case.case_id}.png",
        title=f"{case.case_id}: mean Dice {float(dice):.3f}, tuning case",
    )


def draw_run_curves(directory: RunDirectory) -> None:
    """curves.png from the journal."""
    draw_curves(directory.metrics, directory.curves)

"""What is made of the selected checkpoint: scores of the tuning cases, their overlays, the curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from segkit.data.stored_case import StoredCase
from segkit.evaluation import CaseResult, evaluate_case, write_per_case
from segkit.reporting.curves import draw_curves
from segkit.runs.directory import RunDirectory
from segkit.types import Case
from segkit.workflows.loading import TrainedRun, load
from segkit.workflows.native_overlay import draw_native

MARK = "selection score (optimistic)"
"""What every score on a tuning case is called."""


def score_tuning(trained: TrainedRun, cases: Sequence[StoredCase]) -> list[CaseResult]:
    """Score the tuning cases by the selected checkpoint and write per_case.csv."""
    results = [evaluate_case(trained.predictor, case.load(), trained.settings).without_arrays() for case in cases]
    if results:
        write_per_case(trained.directory.per_case, results, trained.plan.labels, note=MARK)
    return results


def draw_tuning(
    trained: TrainedRun, cases: Sequence[tuple[Case, StoredCase]], *, number: int, folder: str = ""
) -> None:
    """Overlays of the first `number` tuning cases, the same ones each time.

    Args:
        trained: The run with the weights to draw by.
        cases: Tuning cases: their files, and as prepared.
        number: How many.
        folder: Below overlays/; empty for overlays/ itself.
    """
    for case, stored in sorted(cases, key=lambda pair: pair[0].case_id)[:number]:
        prepared = stored.load()
        result = evaluate_case(trained.predictor, prepared, trained.settings)
        dice = torch.tensor([float(row.overlap.dice) for row in result.rows]).nanmean()
        draw_native(
            case,
            prepared,
            result.prediction,
            labels=trained.plan.labels,
            path=trained.directory.overlays / folder / f"{case.case_id}.png",
            title=f"{case.case_id}: mean Dice {float(dice):.3f}, tuning case",
        )


def draw(
    directory: RunDirectory,
    config: Mapping[str, Any],
    tuning: Sequence[tuple[Case, StoredCase]],
    *,
    checkpoint: str = "selected",
) -> TrainedRun:
    """Curves, and overlays by the weights of a checkpoint, which is returned."""
    trained = load(directory.path, checkpoint=checkpoint, accelerator=config["trainer"]["accelerator"], trust=True)
    draw_run_curves(directory)
    epoch = "" if checkpoint == "selected" else f"epoch-{trained.selection.entry.epoch:04d}"
    draw_tuning(trained, tuning, number=config["overlays"]["cases"], folder=epoch)
    return trained


def draw_run_curves(directory: RunDirectory) -> None:
    """curves.png from the journal."""
    draw_curves(directory.metrics, directory.curves)

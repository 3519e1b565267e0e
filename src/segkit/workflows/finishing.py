"""What is made of the selected checkpoint: scores of the tuning cases, their overlays, the curves."""

from collections.abc import Sequence

import torch

from segkit.data.stored_case import StoredCase
from segkit.evaluation import CaseResult, evaluate_case, write_per_case
from segkit.reporting.curves import draw_curves
from segkit.reporting.overlays import draw_case
from segkit.runs.directory import RunDirectory
from segkit.workflows.loading import TrainedRun

MARK = "selection score (optimistic)"
"""What every score on a tuning case is called."""


def score_tuning(trained: TrainedRun, cases: Sequence[StoredCase]) -> list[CaseResult]:
    """Score the tuning cases by the selected checkpoint and write per_case.csv."""
    results = [evaluate_case(trained.predictor, case.load(), trained.settings).without_arrays() for case in cases]
    if results:
        write_per_case(trained.directory.per_case, results, trained.plan.labels, note=MARK)
    return results


def draw_tuning(trained: TrainedRun, cases: Sequence[StoredCase], *, number: int, folder: str = "") -> None:
    """Overlays of the first `number` tuning cases, the same ones each time.

    Args:
        trained: The run with the weights to draw by.
        cases: Tuning cases.
        number: How many.
        folder: Below overlays/; empty for overlays/ itself.
    """
    for stored in sorted(cases, key=lambda case: case.case_id)[:number]:
        case = stored.load()
        result = evaluate_case(trained.predictor, case, trained.settings)
        assert result.logits is not None
        dice = torch.tensor([float(row.overlap.dice) for row in result.rows]).nanmean()
        draw_case(
            case,
            result.logits.argmax(dim=0).numpy(),
            path=trained.directory.overlays / folder / f"{case.case_id}.png",
            title=f"{case.case_id}: mean Dice {float(dice):.3f}, tuning case",
            spacing=trained.plan.spacing,
            labels=trained.plan.labels,
        )


def draw_run_curves(directory: RunDirectory) -> None:
    """curves.png from the journal."""
    draw_curves(directory.metrics, directory.curves)

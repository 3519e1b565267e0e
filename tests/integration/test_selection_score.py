"""The score a checkpoint is selected by is the score that `evaluate` gives it on the same cases."""

import pytest

from segkit.configuration import compose
from segkit.workflows import evaluate
from segkit.workflows.train import run


@pytest.mark.parametrize("overrides", [(), ("trainer.ema_decay=0.9", "trainer.precision=bf16-mixed")])
def test_stored_score_equals_evaluate_on_the_tuning_cases(run_config, overrides):
    trained = run(run_config("scored", *overrides, "select=best"))
    summary = evaluate.run(compose("evaluate", [f"run={trained.directory.path}", "subset=tuning", "overlays=0"]))
    assert trained.score > 0
    assert summary.score == pytest.approx(trained.score, abs=1e-6)
    entry = trained.selection.entry
    assert summary.per_case_score == pytest.approx(entry.per_case, abs=1e-6)

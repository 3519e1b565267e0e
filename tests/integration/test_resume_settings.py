"""Whatever keeps a state of its own resumes with the run: schedules, early stopping, sparse validation, loaders."""

import pytest

from segkit.errors import Preempted
from segkit.workflows.train import run

STOPPING = ("early_stopping.patience=1", "early_stopping.warmup_epochs=1", "early_stopping.min_delta=1")


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("scheduler=plateau", "scheduler.patience=0", "scheduler.factor=0.5", "optimizer.lr=1e-8"),
        ("scheduler=cyclic", "scheduler.step_size=2", "data.order=replacement", "data.workers=1"),
        (*STOPPING, "early_stopping.cooldown_epochs=2"),
        (*STOPPING, "early_stopping.cooldown_epochs=0"),
        ("validation.every_n_epochs=2", "network=residual_unet"),
        ("data.split.tuning=0", "network=attention_unet"),
    ],
    ids=["plateau", "cyclic, drawn with replacement, worker", "cool-down", "stop", "validated every 2", "no tuning"],
)
def test_stopped_after_every_step_of_a_life(run_config, end_state, assert_bitwise_equal, stop_after, overrides):
    overrides = ("trainer.max_epochs=5", "trainer.steps_per_epoch=2", *overrides)
    expected = end_state(run(run_config("whole", *overrides)).directory.path)
    assert 4 <= expected["step"] <= 10
    # one run, stopped after each of its steps in turn: as many lives as steps
    config = run_config("stopped", *overrides)
    for step in range(1, expected["step"] + 1):
        with pytest.raises(Preempted):
            run(config, callbacks=[stop_after(step)])
    assert_bitwise_equal(expected, end_state(run(config).directory.path))

"""Interrupted after any step and started again by the same command: the run that was never interrupted, to the bit."""

import json
from pathlib import Path

import pytest

from segkit.errors import Preempted, UsageError
from segkit.workflows.train import run

STEPS = 6


# Steps 3 and 6 are the last of an epoch: the run stops within its validation.
@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        pytest.param((), range(1, STEPS + 1), marks=pytest.mark.slow, id="float32, every step"),
        pytest.param((), (6,), id="float32"),
        pytest.param(("trainer.ema_decay=0.9", "trainer.accumulate=2"), (2,), id="averaged weights, accumulation"),
        pytest.param(("trainer.precision=bf16-mixed", "optimizer=sgd"), (5,), id="bfloat16, sgd"),
    ],
)
def test_stopped_after_a_step(run_config, end_state, assert_bitwise_equal, stop_after, overrides, steps):
    whole = run(run_config("whole", *overrides)).directory.path
    expected = end_state(whole)
    assert expected["step"] == STEPS
    for step in steps:
        config = run_config(f"stopped-{step}", *overrides)
        with pytest.raises(Preempted):
            run(config, callbacks=[stop_after(step)])
        resumed = run(config).directory.path
        assert_bitwise_equal(expected, end_state(resumed))


def test_weights_of_the_loss_go_on_with_the_epoch(run_config, end_state, assert_bitwise_equal, stop_after):
    """Stopped within the validation of the first epoch and within the second: the weights are those of the epoch."""
    overrides = ("loss.schedule={dice: {0: 4.0, 1: 0.0}, ce: {0: 0.0, 1: 3.0}}",)
    expected = end_state(run(run_config("whole", *overrides)).directory.path)
    other = end_state(run(run_config("constant", overrides[0].replace("1: 0.0", "1: 4.0"))).directory.path)
    assert other["metrics"] != expected["metrics"], "the schedule does nothing"
    for step in (3, 4):
        config = run_config(f"stopped-{step}", *overrides)
        with pytest.raises(Preempted):
            run(config, callbacks=[stop_after(step)])
        assert_bitwise_equal(expected, end_state(run(config).directory.path))


def test_a_finished_run_trains_nothing_more_and_says_so(run_config, end_state, assert_bitwise_equal, capsys):
    config = run_config("done")
    before = end_state(run(config).directory.path)
    capsys.readouterr()
    assert_bitwise_equal(before, end_state(run(config).directory.path))
    assert "finished before" in capsys.readouterr().out


def test_extra_epochs_go_on_from_the_end(run_config, end_state):
    path = run(run_config("more")).directory.path
    run(run_config("more", "extra_epochs=1"))
    assert end_state(path)["step"] == STEPS + 3
    run(run_config("more", "extra_epochs=1"))
    assert end_state(path)["step"] == STEPS + 6


def test_a_changed_learning_rate_applies_on_resume(run_config, end_state):
    path = run(run_config("rate", "scheduler=constant", "optimizer.lr=1e-3")).directory.path
    run(run_config("rate", "scheduler=constant", "optimizer.lr=5e-4", "trainer.max_epochs=3"))
    rates = [line for line in (path / "metrics.jsonl").read_text().splitlines() if '"lr"' in line]
    assert '"value": 0.001' in rates[0]
    assert '"value": 0.0005' in rates[-1]


def test_what_may_not_change_is_refused_with_both_values(run_config):
    run(run_config("fixed", "trainer.max_epochs=1"))
    with pytest.raises(UsageError, match=r"seed: 0 -> 1") as refused:
        run(run_config("fixed", "seed=1"))
    assert refused.value.exit_code == 2


def test_resume_never_and_must(run_config, tmp_path: Path):
    with pytest.raises(UsageError, match="nothing to go on"):
        run(run_config("absent", "resume=must"))
    run(run_config("present", "trainer.max_epochs=1"))
    with pytest.raises(UsageError, match="already"):
        run(run_config("present", "resume=never"))


def test_killed_between_the_last_checkpoint_and_its_pointers(run_config, tmp_path: Path):
    """The same command brings `last.json`, `best.json` and the index up to date, though nothing is left to train."""
    path = run(run_config("pointers")).directory.path
    pointers = {name: (path / "checkpoints" / name).read_bytes() for name in ("last.json", "best.json", "index.json")}
    status = json.loads((path / "STATUS.json").read_text())
    del status["ended"]  # as the kill left it
    (path / "STATUS.json").write_text(json.dumps({**status, "state": "running"}))
    for name in pointers:
        (path / "checkpoints" / name).write_text("{}")
    run(run_config("pointers"))
    assert {name: (path / "checkpoints" / name).read_bytes() for name in pointers} == pointers

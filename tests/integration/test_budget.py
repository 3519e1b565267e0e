"""`trainer.budget`: as many steps as fit, once; the line that it stores makes the same run again."""

from pathlib import Path

import pytest

from segkit.callbacks.stop_watch import FEWEST
from segkit.errors import OutOfMemory, Preempted, UsageError
from segkit.planning.budget import steps_within
from segkit.runs.directory import RunDirectory
from segkit.runs.files import read_json
from segkit.workflows import rehearsal
from segkit.workflows.train import run

STEPS = 24
WITHOUT_LENGTH = ("trainer.max_epochs=null", "trainer.steps_per_epoch=null", "validation.every_n_epochs=null")


@pytest.fixture
def asked(monkeypatch) -> list[dict]:
    """What the number of steps was worked out from; it is always 24, since a busy machine must not fail a test."""
    asked = []

    def fits(budget_s, tempo, **others):
        asked.append({"budget_s": budget_s, "tempo": tempo, **others})
        assert steps_within(1e6, tempo, **others) >= 1
        return STEPS

    monkeypatch.setattr(rehearsal, "SHARE", 0.0)
    monkeypatch.setattr(rehearsal, "steps_within", fits)
    return asked


def test_the_stored_number_of_steps_makes_the_same_run_again(run_config, end_state, assert_bitwise_equal, asked):
    given = run(run_config("given", "trainer.budget=10m", *WITHOUT_LENGTH)).directory
    assert [(one["budget_s"], one["tempo"].steps) for one in asked] == [(600.0, FEWEST)]
    tempo = asked[0]["tempo"]
    assert min(tempo.step_s, tempo.validation_s) > 0
    assert asked[0]["spent_s"] > (FEWEST + 3) * 0.5 * tempo.step_s  # the rehearsal is part of what is gone
    plan = read_json(given.plan)
    assert plan["max_steps"] == read_json(given.budget)["max_steps"] == STEPS
    assert f"trainer.max_steps={STEPS}" in plan["reasons"]["max_epochs"]
    assert not list(given.path.glob("*rehearsal*"))

    expected = end_state(given.path)
    assert expected["step"] == STEPS
    again = run(run_config("again", f"trainer.max_steps={STEPS}", *WITHOUT_LENGTH)).directory
    lengths = ("max_epochs", "steps_per_epoch", "validation_every_n_epochs")
    assert [read_json(again.plan)[key] for key in lengths] == [plan[key] for key in lengths]
    assert_bitwise_equal(expected, end_state(again.path))


def test_what_does_not_fit_is_refused_before_it_is_timed(run_config, monkeypatch):
    monkeypatch.setattr(rehearsal, "rehearse", None)  # would be called to time it
    with pytest.raises(OutOfMemory, match="Training would not fit"):
        run(
            run_config(
                "large", "trainer.budget=10m", "trainer.check_memory=true", "plan.batch_size=1000000", *WITHOUT_LENGTH
            )
        )


def test_a_resumed_run_is_not_timed_again(run_config, stop_after, monkeypatch, end_state, asked):
    config = run_config("stopped", "trainer.budget=10m", *WITHOUT_LENGTH)
    directory = RunDirectory(Path(config["paths"]["runs"]) / "stopped")
    with pytest.raises(Preempted):
        run(config, callbacks=[stop_after(15)])
    plan = directory.plan.read_bytes()
    monkeypatch.setattr(rehearsal, "rehearse", None)  # would be called to time again
    run(config)
    assert directory.plan.read_bytes() == plan
    assert end_state(directory.path)["step"] == STEPS
    assert len(asked) == 1


@pytest.mark.slow
def test_a_rehearsal_that_was_killed_is_made_again(run_config, end_state, asked):
    config = run_config("killed", "trainer.budget=10m", *WITHOUT_LENGTH)
    directory = RunDirectory(Path(config["paths"]["runs"]) / "killed")
    (directory.path / ".rehearsal" / "checkpoints").mkdir(parents=True)
    run(config)
    assert end_state(directory.path)["step"] == STEPS
    assert not list(directory.path.glob("*rehearsal*"))


def test_a_budget_too_small_for_a_step_is_refused_with_what_helps(run_config):
    with pytest.raises(UsageError, match="over before training can begin") as raised:
        run(run_config("late", "trainer.budget=0.1s", *WITHOUT_LENGTH))
    assert "trainer.budget=" in raised.value.mend


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("trainer.budget=soon",), "no duration"),
        (("trainer.budget=5m", "trainer.max_epochs=3"), "each gives the length"),
        (("trainer.max_steps=50", "trainer.steps_per_epoch=3"), "each gives the length"),
        (("trainer.budget=5m", "trainer.devices=2"), "trainer.max_steps instead"),
    ],
)
def test_two_lengths_and_no_length_are_told_apart(run_config, overrides, message):
    none = {word.split("=")[0] for word in overrides}
    with pytest.raises(UsageError, match=message):
        run_config("wrong", *(word for word in WITHOUT_LENGTH if word.split("=")[0] not in none), *overrides)

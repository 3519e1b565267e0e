"""How many steps fit into seconds, and how steps become epochs."""

import math

import pytest

from segkit.errors import UsageError
from segkit.planning.budget import EPOCHS, Tempo, divided, seconds, steps_within, validation_distance


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", 90), ("10m", 600), ("8h", 28800), ("1h30m", 5400), ("2d", 172800), ("1.5h", 5400), (" 5M ", 300)],
)
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "10", "m", "-5m", "0s", "5 minutes", "m5", "1m1h", "nan", "infh", "1..5m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"could not convert|no duration"):
        seconds(text)


@pytest.mark.parametrize("shortest", [4, 25, 250])
def test_epochs_times_length_is_nearly_every_number_of_steps(shortest: int) -> None:
    for steps in [*range(1, 3000, 7), 10**4, 10**5 + 1, 10**6]:
        epochs, length = divided(steps, shortest=shortest)
        assert epochs >= 1
        assert length >= 1
        assert 0 <= steps - epochs * length <= max(3, 0.05 * steps)
        if steps >= 2 * shortest:
            assert 0.7 * shortest <= length <= 14 * shortest


def test_a_usual_run_has_about_twenty_epochs_a_long_one_more() -> None:
    assert abs(divided(1200, shortest=25)[0] - EPOCHS) <= 4
    assert divided(100_000, shortest=25)[0] > 300


@pytest.mark.parametrize("step_s", [0.01, 0.21, 3.3])
@pytest.mark.parametrize("validation_s", [0.0, 2.5])
def test_what_is_planned_fits_and_no_more_would(step_s: float, validation_s: float) -> None:
    tempo = Tempo(step_s=step_s, epoch_s=0.3, validation_s=validation_s, steps=10)
    budget = 300.0
    steps = steps_within(budget, tempo, spent_s=12.0, ending_s=4.0, shortest=25)

    def cost(number: int) -> float:
        epochs, length = divided(number, shortest=25)
        return epochs * (length * step_s + 0.3) + math.ceil(epochs / validation_distance(epochs)) * validation_s

    assert math.prod(divided(steps, shortest=25)) == steps  # so that the same number of steps is divided alike again
    assert cost(steps) <= budget - 16
    # The end is near the budget's: 2 % for what divides well, or a step where steps are long.
    assert budget - 16 - cost(steps) <= max(0.02 * budget, 3 * step_s)


def test_a_budget_that_is_over_names_what_helps() -> None:
    tempo = Tempo(step_s=2.0, epoch_s=0.1, validation_s=1.0, steps=6)
    with pytest.raises(UsageError, match="over before training") as raised:
        steps_within(60.0, tempo, spent_s=58.0, ending_s=4.0, shortest=25)
    assert "trainer.budget=5m" in raised.value.mend
    assert "segkit.prepare" in raised.value.mend


def test_validations_of_a_run_of_given_length() -> None:
    assert [validation_distance(epochs) for epochs in (1, 10, 20, 21, 400)] == [1, 1, 2, 3, 40]

"""When training stops: the recorded series of a real project, warm-up, cool-down, resume."""

import math
from pathlib import Path

import pytest
from tests.callbacks.toy import ToyModule, train

from segkit.callbacks.early_stopping import EarlyStopping, Observed, Patience
from segkit.runs.checkpoints import newest_valid

# Validation Dice of a run whose first 21 epochs learnt nothing (.01 to .09), best .3288 at epoch 26, flat after.
SERIES = [0.01 + 0.08 * i / 20 for i in range(21)] + [0.2991, 0.3267, 0.3250, 0.3270, 0.3288] + [0.31] * 30


def stops_at(series: list[float], rule: Patience) -> int | None:
    seen = Observed()
    for epoch, score in enumerate(series, start=1):
        seen = seen.after(score, epoch=epoch, min_delta=rule.min_delta)
        if seen.exhausted(rule):
            return epoch
    return None


def test_replay_patience_30_stops_at_56_and_50_does_not() -> None:
    assert len(SERIES) == 56
    assert stops_at(SERIES, Patience(30)) == 56
    assert stops_at(SERIES, Patience(50)) is None


def test_warmup_survives_a_slow_start() -> None:
    flat = [0.05] * 21 + SERIES[21:]
    assert stops_at(flat, Patience(15)) == 16
    assert stops_at(flat, Patience(15, warmup_epochs=21)) == 26 + 15


def test_counts_from_the_later_of_best_and_warmup() -> None:
    assert stops_at([0.5] + [0.1] * 30, Patience(5)) == 6
    assert stops_at([0.5] + [0.1] * 30, Patience(5, warmup_epochs=10)) == 15


def test_min_delta_ties_and_nan_are_no_improvement() -> None:
    assert stops_at([0.5, 0.505, 0.509], Patience(2, min_delta=0.01)) == 3
    assert stops_at([0.5, 0.5, 0.5], Patience(2)) == 3
    assert stops_at([0.5, math.nan, math.inf], Patience(2)) == 3


def test_stops_the_trainer_and_says_why(tmp_path: Path, caplog) -> None:
    stopping = EarlyStopping(Patience(2))
    caplog.set_level("INFO", "segkit")
    _, trainer = train(tmp_path, epochs=9, module=ToyModule(scores=[0.1, 0.4] + [0.3] * 7), callbacks=(stopping,))
    assert trainer.current_epoch == 4
    assert "0.4000, is of epoch 2" in stopping.reason
    assert stopping.reason in caplog.text


def test_a_stopped_run_stays_stopped_and_a_larger_patience_lets_it_go_on(tmp_path: Path) -> None:
    scores = [0.1, 0.4] + [0.3] * 7
    train(tmp_path, epochs=9, module=ToyModule(scores=scores), callbacks=(EarlyStopping(Patience(2)),))
    again = EarlyStopping(Patience(2))
    _, trainer = train(
        tmp_path, epochs=9, module=ToyModule(scores=scores), callbacks=(again,), resume=newest_valid(tmp_path)
    )
    assert trainer.global_step == 16
    assert again.reason
    _, trainer = train(
        tmp_path,
        epochs=9,
        module=ToyModule(scores=scores),
        callbacks=(EarlyStopping(Patience(5)),),
        resume=newest_valid(tmp_path),
    )
    assert trainer.current_epoch == 7


class Annealing(ToyModule):
    def anneal(self, steps: int) -> None:
        self.annealed.append(steps)


def test_cooldown_brings_the_rate_down_before_the_stop(tmp_path: Path) -> None:
    module = Annealing(scores=[0.4] + [0.3] * 19)
    stopping = EarlyStopping(Patience(2), cooldown_epochs=3)
    _, trainer = train(tmp_path, epochs=20, module=module, callbacks=(stopping,))
    assert module.annealed == [3 * 4]
    assert trainer.current_epoch == 1 + 2 + 3
    assert "brought to zero from epoch 3" in stopping.reason


def test_cooldown_ends_with_the_run_and_survives_a_resume(tmp_path: Path) -> None:
    scores = [0.4] + [0.3] * 19
    module = Annealing(scores=scores)
    train(tmp_path, epochs=4, module=module, callbacks=(EarlyStopping(Patience(2), cooldown_epochs=3),))
    assert module.annealed == [4]
    module = Annealing(scores=scores)
    _, trainer = train(
        tmp_path,
        epochs=20,
        module=module,
        callbacks=(EarlyStopping(Patience(2), cooldown_epochs=3),),
        resume=newest_valid(tmp_path),
    )
    assert trainer.current_epoch == 6
    assert module.annealed == []


@pytest.mark.parametrize("cooldown", [0, 3])
def test_module_without_annealing_is_stopped_at_once(tmp_path: Path, cooldown: int) -> None:
    stopping = EarlyStopping(Patience(2), cooldown_epochs=cooldown)
    _, trainer = train(tmp_path, epochs=9, module=ToyModule(scores=[0.4] * 9), callbacks=(stopping,))
    assert trainer.current_epoch == 3

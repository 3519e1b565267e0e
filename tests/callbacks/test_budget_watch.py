"""A machine that has become slower: the rate reaches zero in time, and the shortened run stays shortened."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tests.callbacks.toy import KillAfter, Killed, ToyModule
from tests.callbacks.toy import train as train_toy

from segkit.callbacks.budget_watch import BudgetWatch, steps_that_fit
from segkit.callbacks.checkpointing import Checkpointing
from segkit.runs.checkpoints import newest_valid
from segkit.runs.index import last, load_index


class Machine(Callback):
    """A clock that advances by so many seconds a step; it ticks before the watch looks."""

    def __init__(self, step_s: float) -> None:
        self.step_s, self.now = step_s, 0.0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self.now += self.step_s

    def clock(self) -> float:
        return self.now

    def watch(self, budget_s: float, max_steps: int) -> BudgetWatch:
        return BudgetWatch(budget_s, ending_s=1.0, max_steps=max_steps, spent_s=self.clock, clock=self.clock)


class Cooling(ToyModule):
    def anneal(self, steps: int) -> None:
        self.annealed.append(steps)


def train(root: Path, **settings: Any) -> tuple[ToyModule, Trainer]:
    return train_toy(root, epochs=10, module=Cooling(), **settings)


def test_a_plan_that_holds_is_left_alone() -> None:
    assert steps_that_fit(10.0, steps=10, step_s=1.0, budget_s=100.0) is None
    assert steps_that_fit(10.0, steps=12, step_s=1.0, budget_s=100.0) is None  # 2 % late: within what is tolerated


def test_a_plan_that_will_be_late_is_left_alone_until_the_cool_down_is_due() -> None:
    assert steps_that_fit(50.0, steps=100, step_s=1.0, budget_s=100.0) is None
    assert steps_that_fit(14.0, steps=60, step_s=1.0, budget_s=100.0) == 14


def test_a_machine_as_fast_as_timed_takes_all_steps(tmp_path: Path) -> None:
    machine = Machine(1.0)
    watch = machine.watch(41.0, 40)
    module, trainer = train(tmp_path, callbacks=(machine, watch))
    assert trainer.global_step == 40
    assert watch.limit is None
    assert watch.reason == ""
    assert module.annealed == []


def test_a_machine_half_as_fast_ends_in_time_with_its_rate_annealed(tmp_path: Path) -> None:
    machine = Machine(2.0)
    watch = machine.watch(41.0, 40)
    module, trainer = train(tmp_path, callbacks=(machine, watch))
    assert abs(machine.now - 40.0) <= 2.0  # within 5 % of the budget
    assert trainer.global_step == watch.limit
    assert len(module.annealed) == 1
    assert "budget" in watch.reason
    entry = last(load_index(tmp_path))
    assert entry.step == watch.limit
    assert entry.validated


@pytest.mark.parametrize("step", [12, 18, 19])
def test_killed_and_resumed_it_ends_at_the_same_step(tmp_path: Path, step: int) -> None:
    whole, _ = train(tmp_path / "whole", callbacks=((m := Machine(2.0)), m.watch(41.0, 40)))
    machine, checkpointing = Machine(2.0), Checkpointing(tmp_path, every_s=None)
    killer = KillAfter(checkpointing, save_step=step, die_step=step)
    callbacks = (machine, machine.watch(41.0, 40), killer)
    with pytest.raises(Killed):
        train(tmp_path, callbacks=callbacks, checkpointing=checkpointing)
    machine = Machine(2.0)
    watch = machine.watch(41.0, 40)
    module, _ = train(tmp_path, callbacks=(machine, watch), resume=newest_valid(tmp_path))
    assert abs(watch.spent_s - 40.0) <= 2.0  # seconds of both lives
    for name, value in whole.state_dict().items():
        assert torch.equal(value, module.state_dict()[name])


def test_a_shortened_run_that_is_started_again_takes_no_step(tmp_path: Path) -> None:
    machine = Machine(2.0)
    _, trainer = train(tmp_path, callbacks=(machine, machine.watch(41.0, 40)))
    again = Machine(2.0)
    _, resumed = train(tmp_path, callbacks=(again, again.watch(41.0, 40)), resume=newest_valid(tmp_path))
    assert resumed.global_step == trainer.global_step
    assert again.now == 0.0

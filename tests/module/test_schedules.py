"""Every schedule against its formula, and against torch's own where torch has it."""

import itertools
import math

import pytest
import torch
from torch.optim.lr_scheduler import CyclicLR, LRScheduler

from segkit.module import schedules


def optimizer(lr: float = 0.1) -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)


def series(scheduler: LRScheduler, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def test_poly_is_its_formula() -> None:
    rates = series(schedules.poly(optimizer(), total_steps=50, exponent=0.9), 50)
    assert rates == pytest.approx([0.1 * (1 - t / 50) ** 0.9 for t in range(50)])


def test_cosine_warms_up_linearly_and_ends_at_its_final_rate() -> None:
    rates = series(schedules.cosine(optimizer(), total_steps=100, warmup_fraction=0.1, final=0.01), 101)
    assert rates[:10] == pytest.approx([0.1 * (t + 1) / 11 for t in range(10)])
    assert rates[10] == pytest.approx(0.1)
    assert rates[55] == pytest.approx(0.1 * (0.01 + 0.99 * 0.5))
    assert rates[100] == pytest.approx(0.001)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_cosine_refuses_a_warm_up_longer_than_the_run() -> None:
    with pytest.raises(ValueError, match="warmup_fraction"):
        schedules.cosine(optimizer(), total_steps=10, warmup_fraction=1.0)


def test_cyclic_equals_torch_over_two_cycles() -> None:
    ours = series(schedules.cyclic(optimizer(), total_steps=1, base_lr=1e-5, max_lr=1e-2, step_size=67), 268)
    reference = CyclicLR(optimizer(), base_lr=1e-5, max_lr=1e-2, step_size_up=67, cycle_momentum=False)
    theirs = series(reference, 268)
    assert ours == pytest.approx(theirs, rel=1e-12)
    assert max(ours) == pytest.approx(1e-2)


def test_plateau_halves_only_after_patience() -> None:
    opt = optimizer()
    scheduler = schedules.plateau(opt, total_steps=1, factor=0.5, patience=2)
    rates = []
    for loss in [1.0, 1.0, 1.0, 1.0, 0.5, 0.6, 0.6, 0.6]:
        scheduler.step(loss)
        rates.append(opt.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.025])


def test_constant_is_constant() -> None:
    assert series(schedules.constant(optimizer(0.3), total_steps=5), 5) == [0.3] * 5


def test_a_longer_horizon_changes_only_what_is_to_come() -> None:
    short = series(schedules.poly(optimizer(), total_steps=10), 5)
    long = series(schedules.poly(optimizer(), total_steps=20), 20)
    assert short[0] == long[0]
    assert long[5] == pytest.approx(0.1 * (1 - 5 / 20) ** 0.9)
    assert math.isclose(series(schedules.poly(optimizer(), total_steps=10), 11)[10], 0.0)

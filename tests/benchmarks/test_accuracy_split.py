import json

import pytest
import torch
from benchmarks.accuracy.schedule import cosine_multiplier, steps_within
from benchmarks.accuracy.split import MEASURE, TUNE, measure_and_tune

from segkit.module.schedules import cosine
from segkit.types import Case


def stored(path):
    return json.loads(path.read_text())


def person(case):
    """The hippocampi 2k - 1 and 2k are one person."""
    return (int(case.rsplit("_", 1)[1]) + 1) // 2


@pytest.mark.parametrize("path", [MEASURE, TUNE])
def test_no_person_has_two_roles(path):
    people = [{person(case) for case in cases} for cases in stored(path).values()]
    assert sum(map(len, people)) == len(set().union(*people))


def test_tuning_sees_nobody_who_is_measured():
    measured = {person(case) for case in stored(MEASURE)["test"]}
    seen = {person(case) for cases in stored(TUNE).values() for case in cases}
    assert len(measured) == 34
    assert not measured & seen


def test_the_stored_splits_are_the_rule_s():
    ids = sorted({case for cases in stored(MEASURE).values() for case in cases})
    names = {p: f"person_{k:03d}" for k, p in enumerate(sorted({person(case) for case in ids}), start=1)}
    cases = [Case(case, (), None, names[person(case)]) for case in ids]
    for roles, path in zip(measure_and_tune(cases), (MEASURE, TUNE), strict=True):
        assert {role: list(roles.of(role)) for role in ("train", "tuning", "test")} == stored(path)


@pytest.mark.parametrize("total", [1, 7, 100, 333])
def test_the_peer_is_given_segkits_schedule(total):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = cosine(optimizer, total_steps=total, warmup_fraction=0.05)
    multiplier = cosine_multiplier(total)
    for step in range(total + 1):
        assert multiplier(step) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        scheduler.step()


def test_the_steps_fill_the_time_and_no_more():
    steps = steps_within(300.0, start_up=12.5, per_step=0.7)
    assert 12.5 + steps * 0.7 <= 300.0 < 12.5 + (steps + 1) * 0.7
    assert steps_within(1.0, start_up=12.5, per_step=0.7) == 1

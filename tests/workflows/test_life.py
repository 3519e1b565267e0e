"""What ranks and evaluators are told of a case is what the process that prepared it knew."""

from dataclasses import replace

import pytest

from segkit.data.layouts import discover
from segkit.data.store import Store
from segkit.planning.plan import Plan
from segkit.runs.directory import RunDirectory
from segkit.workflows.life import Life, read_tuning
from segkit.workflows.loading import load


@pytest.fixture
def life(nnunet_raw, threshold_run):
    """Two cases as a run prepared them; in the second one only one of two classes was annotated."""
    root = nnunet_raw(cases=9)
    plan: Plan = load(threshold_run(root, 1.4), accelerator="cpu").plan
    store = Store(root / "cache")
    first, second, *_ = discover(root).cases
    cases = (first, replace(second, annotated=("ball_b",)))
    pairs = tuple((case, store.prepare(case, plan)) for case in cases)
    return Life(max_epochs=3, checkpoint=None, train=pairs[:1], tuning=pairs[1:])


def test_it_survives_the_way_through_a_file(life, tmp_path):
    run = RunDirectory(tmp_path / "life").create()
    life.write(run)
    life.write_tuning(run)
    assert Life.read(run) == life
    assert read_tuning(run) == life.tuning
    ((_, stored),) = read_tuning(run)
    assert stored.load().annotated == frozenset({2})

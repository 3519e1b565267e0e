"""Every rung plans every kind of data."""

import itertools

import pytest

from segkit.planning.ladder import LADDER
from segkit.planning.rules import plan_patch


@pytest.mark.parametrize("name", LADDER)
@pytest.mark.parametrize("shape", [(35, 50, 36), (9, 320, 320), (512, 512, 600), (256, 256), (20, 3000)])
def test_rung_gives_a_patch_within_its_limits(name, shape):
    budget = LADDER[name].budget(len(shape))
    plan = plan_patch((1.0,) * len(shape), shape, num_classes=3, num_cases=40, budget=budget)
    assert plan.estimate <= budget.reference
    assert budget.min_batch <= plan.batch_size <= budget.max_batch
    assert len(plan.features) == plan.topology.num_stages <= budget.max_stages
    assert all(n % d == 0 for n, d in zip(plan.patch_size, plan.topology.divisor, strict=True))


def test_rungs_grow():
    ordered = [LADDER[name] for name in ("tiny", "small", "base", "large")]
    for lower, upper in itertools.pairwise(ordered):
        for dimensions in (2, 3):
            assert lower.budget(dimensions).reference < upper.budget(dimensions).reference
            assert lower.budget(dimensions).max_features <= upper.budget(dimensions).max_features

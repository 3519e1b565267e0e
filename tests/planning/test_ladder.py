"""Every rung plans every kind of data."""

import itertools
import math

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


@pytest.mark.parametrize(
    ("name", "volumes", "pictures"),
    [("resenc_m", 680e6, 135e6), ("resenc_l", 2100e6, 380e6), ("resenc_xl", 3600e6, 560e6)],
)
def test_presets_of_the_residual_encoder_are_nnunets(name, volumes, pictures):
    """References of nnU-Net 2.8.1's planners, for batches of 2 and 12; a batch may cover the whole data set."""
    rung = LADDER[name]
    assert (rung.volumes.reference, rung.volumes.reference_batch) == (volumes, 2)
    assert (rung.pictures.reference, rung.pictures.reference_batch) == (pictures, 12)
    for budget in (rung.volumes, rung.pictures):
        assert budget.encoder == "residual"
        assert budget.dataset_share == 1
        assert budget.min_batch == 2
    assert rung.blocks[:6] == (1, 3, 4, 6, 6, 6)
    assert (rung.steps_per_epoch, rung.max_epochs, rung.learning_rate) == (250, 1000, 1e-2)


@pytest.mark.parametrize("name", ["resenc_m", "resenc_l", "resenc_xl"])
def test_a_large_volume_fills_the_preset(name):
    """Six stages, and a patch of so many voxels that one step more along an axis would be over the budget."""
    budget = LADDER[name].volumes
    plan = plan_patch((1.0,) * 3, (600, 600, 600), num_classes=3, num_cases=100, budget=budget)
    assert plan.features[:6] == (32, 64, 128, 256, 320, 320)
    assert 0.7 * budget.reference < plan.estimate <= budget.reference
    assert plan.batch_size == 2


def test_presets_grow():
    patches = [
        plan_patch((1.0,) * 3, (600,) * 3, num_classes=3, num_cases=100, budget=LADDER[name].volumes).patch_size
        for name in ("resenc_m", "resenc_l", "resenc_xl")
    ]
    voxels = [math.prod(patch) for patch in patches]
    assert voxels == sorted(set(voxels))

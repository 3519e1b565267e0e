"""The null experiment at the size that a test may have; `make bench-compare` prints it at full size."""

import numpy as np
import pytest
from benchmarks.null_comparison import HIPPOCAMPUS, LESIONS, PEOPLE, WORLDS, draw, main, simulate

from segkit.metrics.paired_comparison import group_means


def test_the_made_up_dice_look_like_the_real_ones():
    for world, mean, deviation in ((HIPPOCAMPUS, 0.875, 0.021), (LESIONS, 0.6, 0.3)):
        reference, candidate, groups = draw(world, 4000, np.random.default_rng(0))
        of_people = group_means(reference[0], groups) if world is HIPPOCAMPUS else reference
        assert reference.mean() == pytest.approx(mean, abs=0.01 if world is HIPPOCAMPUS else 0.03)
        assert np.std(of_people) == pytest.approx(deviation, rel=0.2)
        found = reference[0, :, 0] > 0
        assert np.mean((reference[0, found, 0] - reference[0, found, 0].mean()) ** 3) < 0  # a tail to the left
        both = (reference > 0) & (candidate > 0)
        assert np.corrcoef(reference[both], candidate[both])[0, 1] > 0.7
        assert ((reference >= 0) & (reference <= 1)).all()


def test_models_are_equal_unless_the_candidate_is_mended():
    for world in WORLDS:
        reference, candidate, _ = draw(world, 10_000, np.random.default_rng(0))
        gain = (candidate - reference).mean()
        seeds = 4 * world.seed * 0.25 * (2 / world.seeds) ** 0.5
        if world.mended:
            assert gain > 0.02
        else:
            assert abs(gain) < 0.01 + seeds


@pytest.mark.parametrize("world", [HIPPOCAMPUS, LESIONS], ids=lambda world: world.name)
@pytest.mark.parametrize("people", PEOPLE)
def test_equal_models_are_seldom_called_different_and_the_interval_holds(world, people):
    rates = simulate(world, people, 200, seed=0)
    assert rates.shown <= 0.06
    assert people < 20 or rates.coverage >= 0.93


def test_equal_methods_too():
    rates = simulate(next(world for world in WORLDS if world.name == "hippocampus, 3 seeds"), 20, 200, seed=0)
    assert rates.shown <= 0.06
    assert rates.coverage >= 0.93


def test_the_table_is_printed(capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.null_comparison.WORLDS", (LESIONS,))
    assert main(["--simulations", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(PEOPLE)
    assert all(line.count("|") == 7 for line in lines)

import numpy as np
import torch
from scipy import stats

from segkit.augmentation.noise import Noise, NoiseDraw


def test_adds_sigma_times_the_field():
    images = torch.randn(1, 1, 5, 6, 7)
    field = Noise().apply(torch.zeros_like(images), None, [NoiseDraw(1.0, 3)])
    for sigma in (0.0, 0.02, 0.5):
        torch.testing.assert_close(Noise().apply(images, None, [NoiseDraw(sigma, 3)]), images + sigma * field)


def test_field_is_gaussian_of_the_drawn_strength():
    images = torch.full((1, 1, 30, 40, 50), 3.0)
    noise = Noise().apply(images, None, [NoiseDraw(0.07, 11)]) - images
    assert stats.kstest(noise.flatten().numpy() / 0.07, "norm").pvalue > 1e-3


def test_field_depends_on_its_seed_and_on_nothing_else():
    images = torch.zeros(3, 1, 20, 20)
    draws = [NoiseDraw(0.1, 5), NoiseDraw(0.1, 6), NoiseDraw(0.1, 5)]
    together = Noise().apply(images, None, draws)
    assert torch.equal(together[0], together[2])
    assert not torch.equal(together[0], together[1])
    assert torch.equal(Noise().apply(images[:1], None, draws[:1])[0], together[0])
    assert abs(np.corrcoef(together[0].flatten(), together[1].flatten())[0, 1]) < 0.2


def test_one_strength_but_a_field_of_its_own_for_each_channel():
    drawn = Noise(probability=1.0).draw(np.random.default_rng(0), channels=4)
    assert drawn is not None
    assert len({one.sigma for one in drawn}) == 1
    assert len({one.seed for one in drawn}) == 4

"""Log-cosh Dice: log cosh in float32 over twelve decades, and the loss as that of soft Dice."""

import math

import numpy as np
import pytest
import torch

from segkit.losses.dice import soft_dice_loss
from segkit.losses.log_cosh_dice import LogCoshDiceLoss, log_cosh, log_cosh_dice_loss
from segkit.types import Target


def test_value_and_slope_of_log_cosh_are_exact_from_tiny_to_huge():
    x = torch.tensor(np.geomspace(1e-8, 1e4, 20001), dtype=torch.float32)
    x = torch.cat([x, -x, torch.tensor([1.0, math.nextafter(1.0, 0.0)])]).requires_grad_()
    value = log_cosh(x)
    value.sum().backward()
    exact = x.detach().double().numpy()
    # Near 0 the series, elsewhere the definition; at 0.01 the series' next term is 3e-14 of the value.
    small = np.abs(exact) < 0.01
    clipped = np.minimum(np.abs(exact), 300)
    definition = np.where(np.abs(exact) > 300, np.abs(exact) - math.log(2), np.log(np.cosh(clipped)))
    expected = np.where(small, exact**2 / 2 - exact**4 / 12 + exact**6 / 45, definition)
    assert np.abs(value.detach().double().numpy() / expected - 1).max() < 1e-6
    assert np.abs(x.grad.double().numpy() / np.tanh(exact) - 1).max() < 1e-6


def test_zero_and_the_largest_float_are_finite():
    x = torch.tensor([0.0, torch.finfo(torch.float32).max], requires_grad=True)
    value = log_cosh(x)
    value.sum().backward()
    assert value.tolist() == [0.0, torch.finfo(torch.float32).max]
    assert x.grad.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("settings", [{}, {"batch_dice": True, "include_background": True, "smooth": 1.0}])
def test_is_log_cosh_of_soft_dice(settings):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    label = torch.randint(-1, 3, (2, 1, 5, 4, 3), generator=generator)
    found = log_cosh_dice_loss(logits, label, **settings)
    parts = [slice(None)] if settings else [slice(0, 1), slice(1, 2)]
    dice = [soft_dice_loss(logits[part], label[part], **settings) for part in parts]
    assert found.item() == pytest.approx(sum(math.log(math.cosh(d.item())) for d in dice) / len(dice), rel=1e-12)
    expected = sum(math.tanh(d.item()) * torch.autograd.grad(d, logits)[0] for d in dice) / len(dice)
    torch.testing.assert_close(torch.autograd.grad(found, logits)[0], expected)
    assert LogCoshDiceLoss(**settings)(logits, Target(label=label)) == found


def test_all_wrong_is_log_cosh_of_one():
    label = torch.ones(1, 1, 4, 4, dtype=torch.int64)
    logits = torch.tensor([50.0, -50.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    assert log_cosh_dice_loss(logits, label).item() == pytest.approx(0.43378, abs=1e-5)

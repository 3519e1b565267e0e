"""Generalised Dice: against the formula, against MONAI, and at its edges."""

import numpy as np
import pytest
import torch
from monai.losses import GeneralizedDiceLoss as MonaiGeneralisedDice

from segkit.errors import UsageError
from segkit.losses.generalised_dice import GeneralisedDiceLoss, generalised_dice_loss
from segkit.types import Target

SHAPES = [(7, 5), (4, 5, 3)]
EXPONENTS = {"square": 2, "simple": 1, "uniform": 0}


def sample(shape, num_classes=3, batch=2, ignored=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, num_classes, *shape, generator=generator, dtype=torch.float64)
    label = torch.randint(0, num_classes, (batch, 1, *shape), generator=generator)
    label[torch.rand(label.shape, generator=generator) < ignored] = -1
    return logits, label


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighting", list(EXPONENTS))
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_equals_the_formula(shape, weighting, batch_dice, activation):
    logits, label = sample(shape, ignored=0.3)
    x, y = logits.numpy(), label.numpy()
    p = 1 / (1 + np.exp(-x)) if activation == "sigmoid" else np.exp(x) / np.exp(x).sum(1, keepdims=True)
    scores = []
    for members in [slice(None)] if batch_dice else [slice(0, 1), slice(1, 2)]:
        hit, total, volume = [], [], []
        for k in range(3):
            truth, known = y[members, 0] == k, y[members, 0] >= 0
            hit.append(p[members, k][truth].sum())
            total.append(p[members, k][known].sum() + truth.sum())
            volume.append(truth.sum())
        weights = [(min(volume) / v) ** EXPONENTS[weighting] for v in volume]
        overlap, both = (sum(w * n for w, n in zip(weights, numbers, strict=True)) for numbers in (hit, total))
        scores.append((2 * overlap + 0.5) / (both + 0.5))
    settings = {"weighting": weighting, "batch_dice": batch_dice, "activation": activation}
    found = generalised_dice_loss(logits, label, smooth=0.5, **settings)
    assert found.item() == pytest.approx(1 - np.mean(scores), rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighting", list(EXPONENTS))
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("include_background", [False, True])
@pytest.mark.parametrize("absent", [False, True])
def test_value_and_gradient_equal_monai(shape, weighting, batch_dice, include_background, absent):
    """Without smoothing to speak of: MONAI adds it to sums of another scale."""
    logits, label = sample(shape)
    if absent:
        label[0][label[0] == 2] = 1
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    monai = MonaiGeneralisedDice(
        to_onehot_y=True,
        softmax=True,
        w_type=weighting,
        batch=batch_dice,
        include_background=include_background,
        smooth_nr=1e-12,
        smooth_dr=1e-12,
    )
    settings = {"weighting": weighting, "batch_dice": batch_dice, "include_background": include_background}
    loss, expected = generalised_dice_loss(ours, label, smooth=1e-9, **settings), monai(theirs, label)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    loss.backward()
    expected.backward()
    # MONAI computes the weights in float32.
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-9)


def test_a_missed_small_class_costs_whatever_the_size_of_the_large_one():
    # Classes of 396 and 4 voxels; the small one is missed: w = 1 and (4 / 396)^2.
    label = torch.zeros(1, 1, 20, 20, dtype=torch.int64)
    label[0, 0, :2, :2] = 1
    logits = torch.tensor([50.0, -50.0]).view(1, 2, 1, 1).expand(1, 2, 20, 20)
    w = (4 / 396) ** 2
    expected = 1 - 2 * w * 396 / (w * (400 + 396) + 4)
    assert generalised_dice_loss(logits, label).item() == pytest.approx(expected, rel=1e-4)
    assert expected > 0.98


@pytest.mark.parametrize("include_background", [False, True])
def test_a_false_alarm_costs_where_its_class_is_absent(include_background):
    label = torch.zeros(1, 1, 8, 8, dtype=torch.int64)
    alarm = label.clone()
    alarm[0, 0, 0, 0] = 1
    quiet, loud = (
        generalised_dice_loss(
            50.0 * torch.stack([1 - x[:, 0], x[:, 0]], 1), label, include_background=include_background
        )
        for x in (label, alarm)
    )
    assert quiet < 1e-6
    assert loud > quiet + 0.007


def test_everything_ignored_is_zero_with_a_zero_gradient():
    logits, label = sample((5, 5))
    logits.requires_grad_()
    loss = GeneralisedDiceLoss()(logits, Target(label=torch.full_like(label, -1)))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.count_nonzero() == 0


def test_smoothing_must_be_positive():
    with pytest.raises(UsageError, match=r"loss\.smooth"):
        GeneralisedDiceLoss(smooth=0.0)

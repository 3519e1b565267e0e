"""Soft Dice: against the formula in a loop, against MONAI, and at its edges."""

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss as MonaiDice

from segkit.errors import UsageError
from segkit.losses.dice import DiceLoss, soft_dice_loss
from segkit.types import Target

SHAPES = [(7, 5), (4, 5, 3)]


def sample(shape, num_classes=3, batch=2, ignored=0.0, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, num_classes, *shape, generator=generator, dtype=dtype)
    label = torch.randint(0, num_classes, (batch, 1, *shape), generator=generator)
    label[torch.rand(label.shape, generator=generator) < ignored] = -1
    return logits, label


def slow_dice(logits, label, *, batch_dice, include_background, smooth, activation, squared=False):
    """The formula, voxel by voxel."""
    logits, label = logits.double().numpy(), label.numpy()[:, 0]
    e = np.exp(logits - logits.max(1, keepdims=True))
    probability = e / e.sum(1, keepdims=True) if activation == "softmax" else 1 / (1 + np.exp(-logits))
    samples = [list(range(len(logits)))] if batch_dice else [[b] for b in range(len(logits))]
    scores = []
    for members in samples:
        for k in range(0 if include_background else 1, logits.shape[1]):
            intersection = predicted = reference = 0.0
            for b in members:
                for voxel in np.ndindex(label.shape[1:]):
                    if label[(b, *voxel)] == -1:
                        continue
                    truth = float(label[(b, *voxel)] == k)
                    intersection += probability[(b, k, *voxel)] * truth
                    predicted += probability[(b, k, *voxel)] ** (2 if squared else 1)
                    reference += truth
            scores.append((2 * intersection + smooth) / (predicted + reference + smooth))
    return 1 - np.mean(scores)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("include_background", [False, True])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("squared", [False, True])
def test_equals_the_formula(shape, batch_dice, include_background, activation, squared):
    settings = {"batch_dice": batch_dice, "include_background": include_background, "activation": activation}
    settings["squared"] = squared
    for ignored in (0.0, 0.3):
        logits, label = sample(shape, ignored=ignored)
        found = soft_dice_loss(logits, label, smooth=0.5, **settings)
        torch.testing.assert_close(found.item(), slow_dice(logits, label, smooth=0.5, **settings), rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("include_background", [False, True])
@pytest.mark.parametrize("squared", [False, True])
def test_value_and_gradient_equal_monai(shape, batch_dice, include_background, squared):
    logits, label = sample(shape, dtype=torch.float64)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    settings = {"include_background": include_background}
    monai = MonaiDice(to_onehot_y=True, softmax=True, batch=batch_dice, squared_pred=squared, **settings)
    loss = soft_dice_loss(ours, label, batch_dice=batch_dice, squared=squared, **settings)
    expected = monai(theirs, label)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-9)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-9)


def test_an_ignored_voxel_is_as_if_it_were_not_there():
    logits, label = sample((6, 4))
    label[:, :, 3:] = -1
    logits.requires_grad_()
    loss = soft_dice_loss(logits, label)
    loss.backward()
    torch.testing.assert_close(loss.detach(), soft_dice_loss(logits.detach()[:, :, :3], label[:, :, :3]))
    assert logits.grad[:, :, 3:].count_nonzero() == 0
    assert logits.grad[:, :, :3].count_nonzero() > 0


def test_batch_dice_weighs_a_small_object_by_its_size():
    # Sample 0: 90 voxels, found. Sample 1: 10 voxels, missed. Together Dice is 2 * 90 / (90 + 100).
    label = torch.zeros(2, 1, 100, 1, dtype=torch.int64)
    label[0, 0, :90] = 1
    label[1, 0, :10] = 1
    foreground = torch.full((2, 100, 1), -50.0)
    foreground[0, :90] = 50.0
    logits = torch.stack((torch.zeros_like(foreground), foreground), 1)
    together, apart = (soft_dice_loss(logits, label, batch_dice=mode).item() for mode in (True, False))
    assert together == pytest.approx(1 - 180 / 190, abs=1e-6)
    assert apart == pytest.approx(0.5, abs=1e-6)


def test_an_absent_class_scores_one_only_as_its_probability_vanishes():
    label = torch.zeros(1, 1, 4, 4, dtype=torch.int64)
    losses = []
    for margin in (0.0, 10.0, 30.0):
        logits = torch.zeros(1, 2, 4, 4)
        logits[:, 0] = margin
        losses.append(soft_dice_loss(logits, label).item())
    assert losses[0] > 0.999
    assert losses[0] > losses[1] > losses[2]
    assert losses[2] < 1e-6


@pytest.mark.parametrize("squared", [False, True])
def test_everything_ignored_is_zero_with_a_zero_gradient(squared):
    logits, label = sample((5, 5))
    logits.requires_grad_()
    loss = soft_dice_loss(logits, torch.full_like(label, -1), squared=squared)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.count_nonzero() == 0


def test_the_module_passes_its_settings_on():
    settings = {"batch_dice": True, "include_background": True, "smooth": 1.0, "activation": "sigmoid"}
    settings["squared"] = True
    logits, label = sample((5, 5))
    assert DiceLoss(**settings)(logits, Target(label=label)) == soft_dice_loss(logits, label, **settings)
    assert DiceLoss()(logits, Target(label=label)) == soft_dice_loss(logits, label)


def test_smoothing_must_be_positive():
    with pytest.raises(UsageError, match=r"loss\.smooth"):
        DiceLoss(smooth=0.0)

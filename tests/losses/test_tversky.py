"""Tversky and focal Tversky: against the formula in a loop, against MONAI, and at their edges."""

import numpy as np
import pytest
import torch
from monai.losses import TverskyLoss as MonaiTversky

from segkit.errors import UsageError
from segkit.losses.dice import soft_dice_loss
from segkit.losses.tversky import TverskyLoss, tversky_loss
from segkit.types import Target

SHAPES = [(7, 5), (4, 5, 3)]


def sample(shape, num_classes=3, batch=2, ignored=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, num_classes, *shape, generator=generator, dtype=torch.float64)
    label = torch.randint(0, num_classes, (batch, 1, *shape), generator=generator)
    label[torch.rand(label.shape, generator=generator) < ignored] = -1
    return logits, label


def slow_tversky(logits, label, *, a, b, exponent, batch_dice, smooth, sigmoid):
    """The formula, voxel by voxel, without the background."""
    logits, label = logits.numpy(), label.numpy()[:, 0]
    e = np.exp(logits)
    probability = 1 / (1 + np.exp(-logits)) if sigmoid else e / e.sum(1, keepdims=True)
    losses = []
    for members in [range(len(logits))] if batch_dice else [[i] for i in range(len(logits))]:
        for k in range(1, logits.shape[1]):
            tp = fp = fn = 0.0
            for i in members:
                for voxel in np.ndindex(label.shape[1:]):
                    if label[(i, *voxel)] >= 0:
                        p, y = probability[(i, k, *voxel)], float(label[(i, *voxel)] == k)
                        tp, fp, fn = tp + p * y, fp + p * (1 - y), fn + (1 - p) * y
            losses.append((1 - (tp + smooth) / (tp + a * fp + b * fn + smooth)) ** exponent)
    return np.mean(losses)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("exponent", [1.0, 4 / 3])
def test_equals_the_formula(shape, batch_dice, activation, exponent):
    logits, label = sample(shape, ignored=0.3)
    settings = {"exponent": exponent, "batch_dice": batch_dice, "smooth": 0.5}
    expected = slow_tversky(logits, label, a=0.2, b=0.9, sigmoid=activation == "sigmoid", **settings)
    found = tversky_loss(logits, label, false_positives=0.2, false_negatives=0.9, activation=activation, **settings)
    assert found.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("include_background", [False, True])
def test_value_and_gradient_equal_monai(shape, batch_dice, include_background):
    logits, label = sample(shape)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    monai = MonaiTversky(
        to_onehot_y=True, softmax=True, batch=batch_dice, include_background=include_background, alpha=0.3, beta=0.7
    )
    loss = tversky_loss(ours, label, batch_dice=batch_dice, include_background=include_background)
    expected = monai(theirs, label)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-12)


def test_equal_costs_are_soft_dice():
    logits, label = sample((6, 5), ignored=0.2)
    found = tversky_loss(logits, label, false_positives=0.5, false_negatives=0.5, smooth=0.5)
    torch.testing.assert_close(found, soft_dice_loss(logits, label, smooth=1.0))


def test_costs_by_hand():
    # 6 of 8 foreground voxels found, 1 false alarm: T = 6 / (6 + 0.3 + 0.7 x 2).
    label = torch.zeros(1, 1, 4, 4, dtype=torch.int64)
    label[0, 0, :2] = 1
    answer = label.clone()
    answer[0, 0, 0, :2], answer[0, 0, 3, 3] = 0, 1
    logits = 100.0 * torch.stack([1 - answer[:, 0], answer[:, 0]], 1)
    for exponent in (1.0, 4 / 3):
        found = tversky_loss(logits, label, exponent=exponent, smooth=1e-9).item()
        assert found == pytest.approx((1 - 6 / 7.7) ** exponent, rel=1e-6)


@pytest.mark.parametrize("exponent", [1.0, 4 / 3])
def test_a_perfect_answer_has_a_finite_gradient(exponent):
    label = torch.randint(0, 3, (1, 1, 9, 9), generator=torch.Generator().manual_seed(0))
    logits = (40.0 * torch.stack([(label[:, 0] == k).float() for k in range(3)], 1)).requires_grad_()
    loss = tversky_loss(logits, label, exponent=exponent)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad.isfinite().all()


def test_everything_ignored_is_zero_with_a_zero_gradient():
    logits, label = sample((5, 5))
    logits.requires_grad_()
    loss = TverskyLoss(exponent=4 / 3)(logits, Target(label=torch.full_like(label, -1)))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.count_nonzero() == 0


@pytest.mark.parametrize(
    ("key", "value"), [("false_positives", 0.0), ("false_negatives", -1.0), ("smooth", 0.0), ("exponent", 0.75)]
)
def test_settings_without_a_meaning_are_refused(key, value):
    with pytest.raises(UsageError, match=rf"loss\.{key}"):
        TverskyLoss(**{key: value})

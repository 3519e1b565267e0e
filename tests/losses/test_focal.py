"""Focal loss: against the formula, against MONAI, and in the half precision in which a clamped one is NaN."""

import math

import numpy as np
import pytest
import torch
from monai.losses import FocalLoss as MonaiFocal

from segkit.errors import UsageError
from segkit.losses.compound import WeightedSum
from segkit.losses.cross_entropy import cross_entropy_loss
from segkit.losses.focal import FocalLoss, focal_loss
from segkit.losses.log_cosh_dice import LogCoshDiceLoss
from segkit.types import Target

SHAPES = [(7, 5), (4, 5, 3)]
ALPHAS = [None, 0.8, (0.2, 1.0, 3.0)]


def sample(shape, num_classes=3, batch=2, ignored=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, num_classes, *shape, generator=generator, dtype=torch.float64)
    label = torch.randint(0, num_classes, (batch, 1, *shape), generator=generator)
    label[torch.rand(label.shape, generator=generator) < ignored] = -1
    return logits, label


def as_tensor(alpha):
    return torch.tensor(alpha, dtype=torch.float64) if isinstance(alpha, tuple) else alpha


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_equals_the_formula(shape, gamma, alpha, activation):
    logits, label = sample(shape, ignored=0.3)
    x, y = logits.numpy(), label.numpy()[:, 0]
    terms = []
    for b, *voxel in np.ndindex(y.shape):
        true = y[(b, *voxel)]
        if true < 0:
            continue
        at = x[(b, slice(None), *voxel)]
        if activation == "softmax":
            weight = 1.0 if alpha is None else alpha[true] if isinstance(alpha, tuple) else alpha if true else 1 - alpha
            p = np.exp(at[true]) / np.exp(at).sum()
            terms.append(-weight * (1 - p) ** gamma * math.log(p))
            continue
        for k in range(3):
            p = 1 / (1 + math.exp(-at[k] if k == true else at[k]))
            weight = (
                1.0 if alpha is None else alpha[k] if isinstance(alpha, tuple) else alpha if k == true else 1 - alpha
            )
            terms.append(-weight * (1 - p) ** gamma * math.log(p))
    found = focal_loss(logits, label, gamma=gamma, alpha=as_tensor(alpha), activation=activation)
    assert found.item() == pytest.approx(np.mean(terms), rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize(
    ("activation", "alpha"), [*(("softmax", alpha) for alpha in ALPHAS), ("sigmoid", None), ("sigmoid", 0.8)]
)
def test_value_and_gradient_equal_monai(shape, gamma, alpha, activation):
    """Under softmax MONAI divides by the number of classes as well.

    Under sigmoid it gives voxels outside a class 1 - a_k, which is below 0 for a weight above 1: not compared.
    """
    logits, label = sample(shape)
    logits = logits.float()  # what MONAI computes in
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    monai = MonaiFocal(to_onehot_y=True, use_softmax=activation == "softmax", gamma=gamma, alpha=alpha)
    loss = FocalLoss(gamma=gamma, alpha=alpha, activation=activation)(ours, Target(label=label))
    expected = monai(theirs, label) * (3 if activation == "softmax" else 1)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_without_gamma_it_is_cross_entropy(activation):
    logits, label = sample((6, 5), ignored=0.2)
    found = focal_loss(logits, label, gamma=0.0, activation=activation)
    torch.testing.assert_close(found, cross_entropy_loss(logits, label, activation=activation))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_a_confident_mistake_keeps_its_gradient_and_a_confident_hit_a_finite_one(activation, gamma):
    for true in (0, 1):
        logits = torch.tensor([[1e4, -1e4]]).view(1, 2, 1, 1).requires_grad_()
        loss = focal_loss(logits, torch.full((1, 1, 1, 1), true), gamma=gamma, activation=activation)
        loss.backward()
        slope = {"softmax": 1.0, "sigmoid": 0.5}[activation]
        expected = [0.0, 0.0] if true == 0 else [slope, -slope]
        torch.testing.assert_close(logits.grad.flatten(), torch.tensor(expected))


def clamped_focal(logits, label, gamma=2.0):
    """The usual way: probabilities, clamped against log 0, in the precision in which they come."""
    p = logits.sigmoid().clamp(1e-6, 1 - 1e-6)
    y = label.to(p.dtype)
    return -(y * (1 - p) ** gamma * p.log() + (1 - y) * p**gamma * (1 - p).log()).mean()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_clamp_is_nan_in_half_precision_where_this_is_finite_and_learns(dtype):
    """1 - 1e-6 is 1 in half precision, and 0 log 0 is NaN: not the cosh of log-cosh Dice, which was suspected."""
    label = torch.tensor([1, 1, 0, 0]).view(1, 1, 4, 1)
    certain = torch.tensor([20.0, -1.0, -20.0, 1.0]).view(1, 1, 4, 1)
    assert clamped_focal(certain, label).isfinite()
    assert clamped_focal(certain.to(dtype), label).isnan()
    both = torch.cat([-certain, certain], 1).to(dtype).requires_grad_()
    loss = WeightedSum({"focal": FocalLoss(), "dice": LogCoshDiceLoss()}, {"focal": 0.3, "dice": 0.7})
    with torch.autocast("cpu", dtype=dtype):
        value = loss(both, Target(label=label))
    value.backward()
    assert value.isfinite()
    assert both.grad.isfinite().all()
    assert (both.grad[:, :, 1::2].abs() > 0.01).all(), "the two wrong voxels still learn"


def test_everything_ignored_is_zero_with_a_zero_gradient():
    logits, label = sample((5, 5))
    logits.requires_grad_()
    loss = FocalLoss()(logits, Target(label=torch.full_like(label, -1)))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.count_nonzero() == 0


@pytest.mark.parametrize("settings", [{"gamma": -1.0}, {"alpha": 1.0}, {"alpha": (-1.0, 1.0)}, {"alpha": (0.0, 0.0)}])
def test_settings_without_a_meaning_are_refused(settings):
    with pytest.raises(UsageError, match=rf"loss\.{next(iter(settings))}"):
        FocalLoss(**settings)

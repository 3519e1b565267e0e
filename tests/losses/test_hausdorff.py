"""Hausdorff loss: against the formula with distances by definition, against MONAI, and its edges."""

import numpy as np
import pytest
import torch
from monai.losses import HausdorffDTLoss, LogHausdorffDTLoss
from tests.losses.voxelwise import certain, probabilities, sample, signed

from segkit.errors import UsageError
from segkit.losses.hausdorff import HausdorffLoss, hausdorff_loss
from segkit.ops.one_hot import one_hot
from segkit.types import Target


def slow_hausdorff(logits, label, *, spacing, alpha, activation):
    """Of each sample and class."""
    p, y = probabilities(logits, activation), label.numpy()[:, 0]
    means = []
    for b in range(len(p)):
        known = y[b] >= 0
        for k in range(1, p.shape[1]):
            apart = [np.abs(signed(mask, known, spacing)) ** alpha for mask in (y[b] == k, p[b, k] > 0.5)]
            cost = (p[b, k] - (y[b] == k)) ** 2 * sum(apart)
            means.append(cost[known].mean() if known.any() else 0.0)
    return np.array(means)


@pytest.mark.parametrize(("shape", "spacing"), [((7, 5), (0.5, 2.0)), ((4, 5, 3), (3.0, 0.8, 1.0))])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_equals_the_formula(shape, spacing, activation):
    for ignored, alpha in ((0.0, 2.0), (0.3, 1.0), (1.1, 2.0)):
        logits, label = sample(shape, ignored=ignored)
        settings = {"spacing": spacing, "alpha": alpha, "activation": activation}
        expected = slow_hausdorff(logits, label, **settings)
        assert hausdorff_loss(logits, label, **settings).item() == pytest.approx(expected.mean(), rel=1e-5)
        logarithm = hausdorff_loss(logits, label, scale="log", **settings).item()
        assert logarithm == pytest.approx(np.log1p(expected).mean(), rel=1e-5)


@pytest.mark.parametrize("shape", [(7, 5), (4, 5, 3)])
@pytest.mark.parametrize(("kind", "scale"), [(HausdorffDTLoss, "linear"), (LogHausdorffDTLoss, "log")])
def test_value_and_gradient_equal_monai(shape, kind, scale):
    """MONAI takes one logarithm of the mean over all samples and classes: equal for one of each."""
    num_classes, batch = (3, 2) if scale == "linear" else (2, 1)
    logits, label = sample(shape, num_classes=num_classes, batch=batch)
    logits *= 3
    label[-1][label[-1] == 2] = 0
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    truth = one_hot(label, num_classes, dtype=torch.float64)
    expected = kind(include_background=False, softmax=True)(theirs, truth)
    found = hausdorff_loss(ours, label, scale=scale)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    found.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-12)


def test_the_same_error_costs_more_further_away():
    label = torch.zeros(1, 1, 4, 20, dtype=torch.int64)
    label[..., 1:3, 1:3] = 1

    def cost(column):
        predicted = label.clone()
        predicted[..., 2, column] = 1
        return hausdorff_loss(certain(predicted, 2), label).item()

    costs = [cost(column) for column in (4, 8, 12, 18)]
    assert costs == sorted(costs)
    # One voxel wrong: 1 mm to the nearest outside of the prediction, 16 to the truth.
    assert costs[-1] == pytest.approx((1 + 16**2) / 80)


def test_a_class_that_is_absent_costs_what_is_predicted_of_it():
    label = torch.zeros(1, 1, 3, 5, dtype=torch.int64)
    predicted = label.clone()
    predicted[0, 0, 1, 1:4] = 1
    assert hausdorff_loss(certain(label, 2), label) == 0
    assert hausdorff_loss(certain(predicted, 2), label).item() == pytest.approx(3 / 15)
    logits = certain(label + 1, 2).requires_grad_()
    loss = hausdorff_loss(logits, label)
    loss.backward()
    assert loss == 0, "no border anywhere: why it is no loss to use alone"
    assert not HausdorffLoss().usable_alone


def test_reads_the_spacing_of_the_target():
    logits, label = sample((4, 5))
    loss = HausdorffLoss()
    torch.testing.assert_close(loss(logits, Target(label, spacing=(2.0, 2.0))), 4 * loss(logits, Target(label)))


def test_refuses_a_power_that_is_none():
    with pytest.raises(UsageError, match=r"loss\.alpha"):
        HausdorffLoss(alpha=0.0)

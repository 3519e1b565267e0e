"""Boundary loss: against the formula with distances by definition, MONAI's up to its constant, and its edges."""

import numpy as np
import pytest
import torch
from monai.losses import BoundaryLoss as MonaiBoundary
from tests.losses.voxelwise import certain, probabilities, sample, signed

from segkit.losses.boundary import BoundaryLoss, boundary_loss
from segkit.ops.one_hot import one_hot
from segkit.types import Target


def slow_boundary(logits, label, *, spacing, include_background, activation):
    p, y = probabilities(logits, activation), label.numpy()[:, 0]
    means = []
    for b in range(len(p)):
        known = y[b] >= 0
        for k in range(0 if include_background else 1, p.shape[1]):
            product = signed(y[b] == k, known, spacing) * (p[b, k] - (y[b] == k))
            means.append(product[known].mean() if known.any() else 0.0)
    return np.mean(means)


@pytest.mark.parametrize(("shape", "spacing"), [((7, 5), (0.5, 2.0)), ((4, 5, 3), (3.0, 0.8, 1.0))])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_equals_the_formula(shape, spacing, activation):
    for ignored, include_background in ((0.0, False), (0.3, True), (1.1, False)):
        logits, label = sample(shape, ignored=ignored)
        settings = {"spacing": spacing, "include_background": include_background, "activation": activation}
        found = boundary_loss(logits, label, **settings).item()
        assert found == pytest.approx(slow_boundary(logits, label, **settings), rel=1e-6)


@pytest.mark.parametrize("shape", [(7, 5), (4, 5, 3)])
def test_is_monais_but_for_its_constant_and_its_inner_distances(shape):
    logits, label = sample(shape)
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    y = one_hot(label, 3, dtype=torch.float64)
    monai = MonaiBoundary(include_background=False)
    p = theirs.softmax(1)
    # Inside, its distances are less by 1 at a spacing of 1; its sum over the truth is not taken off.
    expected = monai(p, y) - monai(y, y) + (y * (1 - p))[:, 1:].mean()
    found = boundary_loss(ours, label)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    found.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-12)


def test_by_hand_in_mm():
    label = torch.tensor([0, 0, 1, 1]).view(1, 1, 1, 4)
    probability = torch.tensor([0.5, 0.0, 1.0, 0.25])
    logits = torch.stack([(1 - probability).log(), probability.log()]).clamp(min=-60).view(1, 2, 1, 4)
    # 2 voxels of 3 mm outside: 0.5 * 6; 2 voxels inside: -6 * (0.25 - 1).
    assert boundary_loss(logits, label, spacing=(1.0, 3.0)).item() == pytest.approx((0.5 * 6 + 6 * 0.75) / 4)
    assert boundary_loss(logits, label).item() == pytest.approx((0.5 * 2 + 2 * 0.75) / 4)


def test_the_gradient_is_the_distance():
    _, label = sample((6, 5), num_classes=2, batch=1)
    logits = torch.zeros(1, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    boundary_loss(logits, label, spacing=(2.0, 1.0)).backward()
    distance = signed(label[0, 0].numpy() == 1, np.ones((6, 5), dtype=bool), (2.0, 1.0))
    torch.testing.assert_close(
        logits.grad[0, 1], torch.from_numpy(distance / 30 / 4), check_dtype=False, rtol=1e-6, atol=0
    )


def test_a_class_without_a_border_costs_nothing_and_keeps_the_graph():
    label = torch.zeros(1, 1, 4, 5, dtype=torch.int64)
    for present in (label, label + 1, label - 1):
        logits = torch.randn(1, 2, 4, 5, requires_grad=True)
        loss = boundary_loss(logits, present)
        loss.backward()
        assert loss.item() == 0
        assert logits.grad.count_nonzero() == 0


def test_reads_the_spacing_of_the_target_and_is_not_for_use_alone():
    logits, label = sample((4, 5))
    loss = BoundaryLoss()
    assert not loss.usable_alone
    wide = loss(logits, Target(label, spacing=(2.0, 2.0)))
    torch.testing.assert_close(wide, 2 * loss(logits, Target(label)))
    assert loss(certain(label, 3), Target(label)) < 1e-6

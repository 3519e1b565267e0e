"""Cross-entropy: against torch's own, against the formula, and where float32 probabilities would fail."""

import math

import pytest
import torch
from torch.nn import functional as F

from segkit.errors import UsageError
from segkit.losses.cross_entropy import CrossEntropyLoss, cross_entropy_loss
from segkit.types import Target

SHAPES = [(7, 5), (4, 5, 3)]


def sample(shape, num_classes=3, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, num_classes, *shape, generator=generator, dtype=torch.float64)
    label = torch.randint(-1, num_classes, (batch, 1, *shape), generator=generator)
    return logits, label


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weights", [None, (0.2, 1.0, 5.0)])
def test_value_and_gradient_equal_torch(shape, weights):
    logits, label = sample(shape)
    weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = cross_entropy_loss(ours, label, class_weights=weights)
    expected = F.cross_entropy(theirs, label[:, 0], weight=weights, ignore_index=-1)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 3.0)])
def test_sigmoid_equals_the_formula(shape, weights):
    logits, label = sample(shape)
    total = count = 0.0
    for k in range(3):
        weight = 1.0 if weights is None else weights[k]
        for x, y in zip(logits[:, k].flatten().tolist(), label[:, 0].flatten().tolist(), strict=True):
            if y != -1:
                p = 1 / (1 + math.exp(-x))
                total -= weight * math.log(p if y == k else 1 - p)
                count += weight
    class_weights = None if weights is None else torch.tensor(weights)
    found = cross_entropy_loss(logits, label, class_weights=class_weights, activation="sigmoid")
    assert found.item() == pytest.approx(total / count, rel=1e-9)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_confident_mistake_keeps_its_gradient(activation):
    # A probability of exp(-1e4) is 0 in any float: a loss that clamps it has no gradient left.
    logits = torch.tensor([[1e4, -1e4]]).view(1, 2, 1, 1).requires_grad_()
    label = torch.ones(1, 1, 1, 1, dtype=torch.int64)
    loss = cross_entropy_loss(logits, label, activation=activation)
    loss.backward()
    assert loss.item() == pytest.approx({"softmax": 2e4, "sigmoid": 1e4}[activation])
    torch.testing.assert_close(
        logits.grad.flatten(), torch.tensor([1.0, -1.0]) / {"softmax": 1, "sigmoid": 2}[activation]
    )


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("weights", [None, (0.0, 1.0, 1.0)])
def test_nothing_to_learn_from_is_zero_with_a_zero_gradient(activation, weights):
    logits, label = sample((5, 5))
    logits.requires_grad_()
    loss = CrossEntropyLoss(class_weights=weights, activation=activation)(
        logits, Target(label=torch.full_like(label, -1))
    )
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.count_nonzero() == 0


def test_only_the_ratios_of_weights_matter():
    logits, label = sample((5, 5))
    losses = [
        CrossEntropyLoss(class_weights=[scale * w for w in (1, 2, 3)])(logits, Target(label=label))
        for scale in (1.0, 900.0)
    ]
    torch.testing.assert_close(*losses)


def test_weights_are_a_setting_and_stay_out_of_the_checkpoint():
    assert CrossEntropyLoss(class_weights=[1.0, 2.0]).state_dict() == {}


@pytest.mark.parametrize("weights", [(-1.0, 1.0), (0.0, 0.0)])
def test_weights_without_a_meaning_are_refused(weights):
    with pytest.raises(UsageError, match=r"loss\.class_weights"):
        CrossEntropyLoss(class_weights=weights)

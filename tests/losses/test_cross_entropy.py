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
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_value_and_gradient_equal_torch(shape, weights, smoothing):
    logits, label = sample(shape)
    weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = cross_entropy_loss(ours, label, class_weights=weights, label_smoothing=smoothing)
    expected = F.cross_entropy(theirs, label[:, 0], weight=weights, ignore_index=-1, label_smoothing=smoothing)
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


@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 3.0)])
def test_smoothed_sigmoid_is_the_loss_of_the_smoothed_label(weights):
    logits, label = sample((7, 5))
    hot = torch.stack([(label[:, 0] == k).double() for k in range(3)], 1)
    binary = F.binary_cross_entropy_with_logits(logits, 0.8 * hot + 0.1, reduction="none")
    w = torch.tensor(weights or (1.0, 1.0, 1.0), dtype=torch.float64).view(1, 3, 1, 1) * (label >= 0)
    expected = (binary * w).sum() / w.expand_as(binary).sum()
    settings = {"class_weights": None if weights is None else torch.tensor(weights), "label_smoothing": 0.2}
    torch.testing.assert_close(cross_entropy_loss(logits, label, activation="sigmoid", **settings), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weights", [None, (0.2, 1.0, 5.0)])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("share", [0.001, 0.1, 1.0])
def test_the_hardest_voxels_equal_the_sorted_list(shape, weights, activation, share):
    logits, label = sample(shape)
    w = torch.tensor(weights or (1.0, 1.0, 1.0), dtype=torch.float64)
    costs = []
    for x, y in zip(logits.movedim(1, -1).reshape(-1, 3), label.flatten(), strict=True):
        if y >= 0 and activation == "softmax":
            costs.append((-(w[y] * x.log_softmax(0)[y]).item(), w[y].item()))
        elif y >= 0:
            hot = F.one_hot(y, 3).double()
            b = F.binary_cross_entropy_with_logits(x, hot, reduction="none")
            costs.append(((w * b).sum().item(), w.sum().item()))
    kept = sorted(costs, reverse=True)[: max(1, math.floor(share * len(costs)))]
    expected = sum(cost for cost, _ in kept) / sum(weight for _, weight in kept)
    settings = {"class_weights": None if weights is None else torch.tensor(weights), "activation": activation}
    assert cross_entropy_loss(logits, label, top_k=share, **settings).item() == pytest.approx(expected, rel=1e-9)


def test_only_the_hardest_voxels_learn_and_ignored_ones_never_do():
    logits, label = sample((10, 10), batch=1)
    logits.requires_grad_()
    label[0, 0, 0] = -1
    cross_entropy_loss(logits, label, top_k=0.2).backward()
    moved = logits.grad.abs().sum(1)[0] > 0
    assert moved.sum() == math.floor(0.2 * (label >= 0).sum())
    assert not moved[label[0, 0] < 0].any()


def test_the_hardest_voxels_do_not_hide_what_is_not_finite():
    logits, label = sample((5, 5))
    logits[0, 0, 0, 0] = torch.nan
    assert cross_entropy_loss(logits, label.clamp(min=0), top_k=0.1).isnan()


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
@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.1}, {"top_k": 0.1}])
def test_nothing_to_learn_from_is_zero_with_a_zero_gradient(activation, weights, settings):
    logits, label = sample((5, 5))
    logits.requires_grad_()
    loss = CrossEntropyLoss(class_weights=weights, activation=activation, **settings)(
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


@pytest.mark.parametrize(
    ("key", "value"), [("label_smoothing", 1.0), ("label_smoothing", -0.1), ("top_k", 0.0), ("top_k", 1.1)]
)
def test_shares_outside_their_range_are_refused(key, value):
    with pytest.raises(UsageError, match=rf"loss\.{key}"):
        CrossEntropyLoss(**{key: value})

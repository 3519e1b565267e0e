"""Weighted sums."""

import pytest
import torch
from monai.losses import DiceCELoss

from segkit.errors import UsageError
from segkit.losses import compound
from segkit.losses.compound import WeightedSum
from segkit.losses.cross_entropy import CrossEntropyLoss
from segkit.losses.dice import DiceLoss
from segkit.losses.loss import Loss
from segkit.types import Target


class Reads(Loss):
    def __init__(self, *needs):
        super().__init__()
        self.needs = frozenset(needs)

    def forward(self, logits, target):
        return logits.sum()


class Forbidden(Reads):
    def forward(self, logits, target):
        raise AssertionError("computed a term of weight 0")


@pytest.fixture
def sample():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 6, 5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    return logits, Target(label=torch.randint(0, 3, (2, 1, 6, 5, 4), generator=generator))


def test_value_and_gradient_are_the_weighted_sum(sample):
    logits, target = sample
    dice, ce = DiceLoss(), CrossEntropyLoss()
    loss = WeightedSum({"dice": dice, "ce": ce}, {"ce": 0.25, "dice": 3.0})(logits, target)
    expected = 3.0 * dice(logits, target) + 0.25 * ce(logits, target)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in (loss, expected)))


def test_dice_and_cross_entropy_equal_monai(sample):
    logits, target = sample
    ours = WeightedSum({"dice": DiceLoss(), "ce": CrossEntropyLoss()}, {"dice": 1.0, "ce": 1.0})(logits, target)
    theirs = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)(logits, target.label)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        *(torch.autograd.grad(value, logits)[0] for value in (ours, theirs)), rtol=1e-5, atol=1e-9
    )


def test_needs_are_those_of_the_terms_that_count(sample):
    terms = {"a": Reads("cells"), "b": Reads("instances", "cells"), "off": Forbidden("weight")}
    loss = WeightedSum(terms, {"a": 1.0, "b": 2.0, "off": 0.0})
    assert loss.needs == {"cells", "instances"}
    logits, target = sample
    assert loss(logits, target) == 3 * logits.sum()


def test_a_foreign_term_needs_nothing():
    class Foreign(torch.nn.Module):
        def forward(self, logits, target):
            return logits.mean()

    assert WeightedSum({"x": Foreign()}, {"x": 1.0}).needs == frozenset()


@pytest.mark.parametrize("weights", [{}, {"b": 1.0}, {"a": -1.0}, {"a": 0.0}, {"a": 1.0, "b": 1.0}])
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(UsageError, match=r"loss\.weights"):
        WeightedSum({"a": DiceLoss()}, weights)


def test_terms_of_soft_counts_share_them_by_activation(sample, monkeypatch):
    logits, target = sample
    terms = {
        "dice": DiceLoss(),
        "all classes": DiceLoss(include_background=True, batch_dice=True),
        "ce": CrossEntropyLoss(class_weights=[1.0, 2.0, 3.0]),
        "each": DiceLoss(activation="sigmoid"),
    }
    expected = sum(term(logits, target) for term in terms.values())
    counted = []
    count = compound.soft_counts

    def counting(*args, activation):
        counted.append(activation)
        return count(*args, activation=activation)

    monkeypatch.setattr(compound, "soft_counts", counting)
    loss = WeightedSum(terms, dict.fromkeys(terms, 1.0))(logits, target)
    assert counted == ["softmax", "sigmoid"]
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in (loss, expected)))


def test_a_term_that_computes_in_its_own_way_is_called(sample):
    class Shifted(DiceLoss):
        def forward(self, logits, target):
            return super().forward(logits, target) + 10

    logits, target = sample
    loss = WeightedSum({"a": Shifted(), "b": DiceLoss()}, {"a": 1.0, "b": 1.0})
    torch.testing.assert_close(loss(logits, target), 2 * DiceLoss()(logits, target) + 10)

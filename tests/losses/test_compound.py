"""Weighted sums."""

import pytest
import torch
from monai.losses import DiceCELoss

from segkit.errors import UsageError
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

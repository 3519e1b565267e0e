"""Weighted sums."""

import pytest
import torch
from monai.losses import DiceCELoss

from segkit.errors import UsageError
from segkit.losses import compound
from segkit.losses.compound import WeightedSum
from segkit.losses.cross_entropy import CrossEntropyLoss
from segkit.losses.deep_supervision import DeepSupervision
from segkit.losses.dice import DiceLoss
from segkit.losses.focal import FocalLoss
from segkit.losses.loss import Loss, set_epoch
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


def test_a_sum_within_a_sum_shares_the_counts(sample, monkeypatch):
    logits, target = sample
    dice, ce, focal = DiceLoss(), CrossEntropyLoss(), FocalLoss()
    inner = WeightedSum({"dice": dice, "ce": ce}, {"dice": 1.0, "ce": 2.0})
    expected = dice(logits, target) + 2 * ce(logits, target) + 3 * focal(logits, target) + 0.5 * dice(logits, target)
    counted = []
    count = compound.soft_counts
    monkeypatch.setattr(compound, "soft_counts", lambda *args, **rest: counted.append(rest) or count(*args, **rest))
    outer = WeightedSum({"main": inner, "focal": focal, "dice": dice}, {"main": 1.0, "focal": 3.0, "dice": 0.5})
    torch.testing.assert_close(outer(logits, target), expected)
    assert len(counted) == 1


def test_terms_that_need_more_than_counts_are_called(sample):
    logits, target = sample
    terms = {
        "dice": DiceLoss(squared=True),
        "ce": CrossEntropyLoss(top_k=0.5),
        "smooth": CrossEntropyLoss(label_smoothing=0.1),
    }
    found = WeightedSum(terms, dict.fromkeys(terms, 1.0))(logits, target)
    torch.testing.assert_close(found, sum(term(logits, target) for term in terms.values()))


@pytest.mark.parametrize("batch_dice", [False, True])
def test_equals_nnunets_dice_and_cross_entropy(sample, batch_dice):
    """nnU-Net's formula: -mean of (2 I + s) / max(P + Y + s, 1e-8) over the foreground, plus cross-entropy."""
    logits, target = sample

    def nnunet(x):
        p, hot = x.softmax(1)[:, 1:], torch.stack([(target.label[:, 0] == k).double() for k in (1, 2)], 1)
        axes = (0, 2, 3, 4) if batch_dice else (2, 3, 4)
        score = (2 * (p * hot).sum(axes) + 1e-5) / (p.sum(axes) + hot.sum(axes) + 1e-5).clamp(min=1e-8)
        return torch.nn.functional.cross_entropy(x, target.label[:, 0]) - score.mean()

    ours = WeightedSum({"dice": DiceLoss(batch_dice=batch_dice), "ce": CrossEntropyLoss()}, {"dice": 1.0, "ce": 1.0})
    found, expected = ours(logits, target), nnunet(logits)
    torch.testing.assert_close(found, expected + 1)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in (found, expected)))


def test_everything_ignored_is_nnunets_minus_one_shifted_to_zero(sample):
    """There -(0 + s) / (0 + 0 + s) = -1 and cross-entropy is left out, with a gradient of 0: the same here, plus 1."""
    logits, target = sample
    loss = WeightedSum({"dice": DiceLoss(), "ce": CrossEntropyLoss()}, {"dice": 1.0, "ce": 1.0})
    value = loss(logits, Target(label=torch.full_like(target.label, -1)))
    assert value.item() == 0
    assert torch.autograd.grad(value, logits)[0].count_nonzero() == 0


def test_weights_follow_the_epoch_and_terms_without_weight_rest(sample):
    logits, target = sample
    dice, ce = DiceLoss(), CrossEntropyLoss()
    terms = {"dice": dice, "ce": ce, "late": Reads("cells"), "never": Forbidden("weight")}
    loss = WeightedSum(
        terms,
        {"dice": 2.0, "late": 0.0, "never": 0.0},
        {"ce": {0: 1.0, 4: 0.0}, "late": {"3": 0, 5: 1.0}, "dice": None},
    )
    assert loss.needs == {"cells"}, "also what is first read later"
    a, b, c = dice(logits, target), ce(logits, target), logits.sum()
    for epoch, expected in ((0, 2 * a + b), (1, 2 * a + 0.75 * b), (4, 2 * a + 0.5 * c), (9, 2 * a + c)):
        set_epoch(DeepSupervision(loss), epoch)
        torch.testing.assert_close(loss(logits, target), expected)


def test_a_name_that_torch_has_taken_is_refused():
    with pytest.raises(UsageError, match=r"loss\.terms\.type"):
        WeightedSum({"type": DiceLoss()}, {"type": 1.0})


def test_an_epoch_without_any_weight_is_refused():
    with pytest.raises(UsageError, match="all 0 in epoch 3"):
        WeightedSum({"a": DiceLoss()}, {}, {"a": {0: 3.0, 3: 0.0, 4: 0.0, 6: 1.0}})
    with pytest.raises(UsageError, match=r"loss\.schedule"):
        WeightedSum({"a": DiceLoss()}, {"a": 1.0}, {"b": {0: 1.0}})


def test_a_term_that_is_left_out_takes_its_weight_with_it(sample):
    logits, target = sample
    loss = WeightedSum({"dice": DiceLoss(), "ce": None}, {"dice": 1.0, "ce": 1.0})
    assert loss(logits, target) == DiceLoss()(logits, target)


def test_a_sum_may_stand_alone_where_a_term_may_in_every_epoch():
    class Helper(Reads):
        usable_alone = False
        waits = True

    terms = {"dice": DiceLoss(), "helper": Helper()}
    assert WeightedSum(terms, {"dice": 0.1, "helper": 1.0}).usable_alone
    assert WeightedSum(terms, {"dice": 0.1, "helper": 1.0}).waits
    assert not WeightedSum(terms, {"dice": 1.0, "helper": 0.0}).waits
    assert not WeightedSum(terms, {"dice": 0.0, "helper": 1.0}).usable_alone
    assert not WeightedSum(terms, {"helper": 1.0}, {"dice": {0: 1.0, 5: 0.0}}).usable_alone
    assert not DeepSupervision(Helper()).usable_alone
    assert DeepSupervision(Helper()).waits


def test_a_term_that_computes_in_its_own_way_is_called(sample):
    class Shifted(DiceLoss):
        def forward(self, logits, target):
            return super().forward(logits, target) + 10

    logits, target = sample
    loss = WeightedSum({"a": Shifted(), "b": DiceLoss()}, {"a": 1.0, "b": 1.0})
    torch.testing.assert_close(loss(logits, target), 2 * DiceLoss()(logits, target) + 10)

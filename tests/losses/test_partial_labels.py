"""Partial labels: the marginal probabilities, what every loss makes of them, and where the gradient does not push."""

from pathlib import Path

import pytest
import torch
import yaml
from tests.losses.voxelwise import sample

from segkit.configuration.instantiate import instantiate
from segkit.losses.compound import WeightedSum
from segkit.losses.cross_entropy import CrossEntropyLoss, cross_entropy_loss
from segkit.losses.deep_supervision import DeepSupervision
from segkit.losses.dice import DiceLoss, soft_dice_loss
from segkit.losses.partial_labels import PartialLabels, classes_present, marginal_logits, over_partial_labels
from segkit.types import Target

CONFIGS = Path(__file__).parents[2] / "configs" / "loss"
TO_FILL = {"custom", "sum"}
PRESENT = torch.tensor([[True, True, False, False], [True, True, True, True]])


def logits_and_label(shape=(5, 4), dtype=torch.float64):
    """Four classes; the first sample has no voxel of the two that were not annotated there."""
    logits, label = sample(shape, num_classes=4, dtype=dtype)
    label[0] %= 2
    label[:, :, 0, 0] = -1
    return logits, label


@pytest.mark.parametrize("shape", [(5, 4), (3, 4, 2)])
def test_softmax_gives_background_the_probability_of_what_it_may_hold(shape):
    logits, _ = logits_and_label(shape)
    p, found = logits.softmax(1), marginal_logits(logits, PRESENT).softmax(1)
    torch.testing.assert_close(found[0, 0], p[0, 0] + p[0, 2] + p[0, 3])
    torch.testing.assert_close(found[0, 1], p[0, 1])
    assert (found[0, 2:] < 1e-26).all()
    assert (found[0, 2:] > 0).all()
    assert torch.equal(marginal_logits(logits, PRESENT)[1], logits[1])


def test_sigmoid_adds_odds():
    logits, _ = logits_and_label()
    odds, found = logits.exp(), marginal_logits(logits, PRESENT).sigmoid()
    together = odds[0, 0] + odds[0, 2] + odds[0, 3]
    torch.testing.assert_close(found[0, 0], together / (1 + together))
    torch.testing.assert_close(found[0, 1], logits[0, 1].sigmoid())
    assert (found[0, 2:] < 1e-26).all()


def test_cross_entropy_is_the_marginal_likelihood():
    logits, label = logits_and_label()
    p = logits.softmax(1)
    merged = torch.stack([p[0, 0] + p[0, 2] + p[0, 3], p[0, 1]])
    own = label[0, 0].clamp_min(0)[None]
    surprises = [-merged.gather(0, own)[0].log(), -p[1].gather(0, label[1].clamp_min(0))[0].log()]
    known = label[:, 0] >= 0
    expected = torch.stack(surprises)[known].mean()
    loss = PartialLabels(CrossEntropyLoss())(logits, Target(label, labels_present=PRESENT))
    torch.testing.assert_close(loss, expected)


def test_dice_of_an_unannotated_class_is_perfect():
    logits, label = logits_and_label()
    first = soft_dice_loss(logits[:1, :2], label[:1])  # of p_1 / (p_0 + p_1): not the same
    known = label[:1] >= 0
    p = logits[:1].softmax(1)[:, 1:2] * known
    y = (label[:1] == 1).double()
    dice = (2 * (p * y).sum() + 1e-5) / (p.sum() + y.sum() + 1e-5)
    loss = PartialLabels(DiceLoss())(logits[:1], Target(label[:1], labels_present=PRESENT[:1]))
    torch.testing.assert_close(loss, 1 - (dice + 1 + 1) / 3, rtol=1e-9, atol=0)
    assert not torch.isclose(loss, first)


def test_an_unannotated_class_is_not_pushed_down_where_the_label_says_background():
    logits, label = logits_and_label()
    background, object_ = label[0, 0] == 0, label[0, 0] == 1
    both = WeightedSum({"dice": DiceLoss(), "ce": CrossEntropyLoss()}, {"dice": 1.0, "ce": 1.0})
    for loss in (CrossEntropyLoss(), DiceLoss(), both):
        plain, partial = (logits.clone().requires_grad_() for _ in range(2))
        loss(plain, Target(label)).backward()
        PartialLabels(loss)(partial, Target(label, labels_present=PRESENT)).backward()
        if isinstance(loss, CrossEntropyLoss):
            assert (plain.grad[0, 2:, background] > 0).all(), "without it the class is pushed down"
        assert (partial.grad[0, 2:, background] < 0).all(), "it may well be there: it shares what draws background up"
        assert (partial.grad[0, 2:, object_] > 0).all(), "another class is there: this one is not"
        torch.testing.assert_close(partial.grad[0].sum(0), torch.zeros_like(partial.grad[0, 0]))


def test_other_samples_stay_to_the_bit():
    logits, label = logits_and_label(dtype=torch.float32)
    for loss in (CrossEntropyLoss(), DiceLoss()):
        whole = PartialLabels(loss)(logits[1:], Target(label[1:], labels_present=PRESENT[1:]))
        assert whole == loss(logits[1:], Target(label[1:]))
        assert PartialLabels(loss)(logits, Target(label)) == loss(logits, Target(label))


def test_gradient_equals_differences():
    logits, label = logits_and_label((3, 2))
    for activation in ("softmax", "sigmoid"):
        loss = PartialLabels(CrossEntropyLoss(activation=activation))
        target = Target(label, labels_present=PRESENT)
        assert torch.autograd.gradcheck(lambda x, loss=loss, target=target: loss(x, target), logits.requires_grad_())


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem not in TO_FILL))
def test_every_loss_is_finite_and_leaves_the_unannotated_alone(name):
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    inner = instantiate(config, where="loss", supplied={"num_classes": 4, "dimensions": 2, "batch_dice": False})
    loss, (logits, label) = PartialLabels(inner), logits_and_label((8, 9), dtype=torch.float32)
    fields = {
        "instances": (label > 0).long(),
        "cells": torch.ones_like(label),
        "weight": torch.ones(label.shape),
        "labels_present": PRESENT,
    }
    target = Target(label, **{name: fields[name] for name in loss.needs})
    right = torch.nn.functional.one_hot(label[:, 0].clamp_min(0), 4).movedim(-1, 1) * 40.0
    unannotated = right.clone()
    unannotated[0, 2] += 40 * (label[0, 0] == 0)
    unannotated[0, 0] -= 40 * (label[0, 0] == 0)
    torch.testing.assert_close(loss(unannotated, target), loss(right, target), rtol=1e-4, atol=1e-5)
    for scale in (1.0, 1e4):
        half = (scale * logits).half().requires_grad_()
        value = loss(half, target)
        value.backward()
        assert value.dtype == torch.float32
        assert value.isfinite()
        assert half.grad.isfinite().all()


def test_under_deep_supervision():
    _, label = logits_and_label((8, 12))
    levels = [torch.randn(2, 4, 8 // s, 12 // s, requires_grad=True) for s in (1, 2)]
    loss = DeepSupervision(PartialLabels(CrossEntropyLoss()))
    assert loss.needs == {"labels_present"}
    found = loss(levels, Target(label, labels_present=PRESENT))
    fine, coarse = (marginal_logits(level, PRESENT) for level in levels)
    below = cross_entropy_loss(coarse, Target(label).at_level((4, 6)).label)
    torch.testing.assert_close(found, (2 * cross_entropy_loss(fine, label) + below) / 3)


def test_classes_present_are_background_and_what_was_annotated():
    found = classes_present([None, frozenset({2}), frozenset()], num_classes=3)
    assert found.tolist() == [[True, True, True], [True, False, True], [True, False, False]]


def test_only_data_with_such_cases_pays():
    loss = DiceLoss()
    assert over_partial_labels(loss, [None, None]) is loss
    assert over_partial_labels(loss, []) is loss
    wrapped = over_partial_labels(loss, [None, frozenset({1})])
    assert isinstance(wrapped, PartialLabels)
    assert wrapped.needs == {"labels_present"}
    assert wrapped.loss is loss

"""Dice plus cross-entropy beside nnU-Net's own loss (2.8.1), where it is installed: value, gradient, edge cases."""

import pytest
import torch

from segkit.losses.compound import WeightedSum
from segkit.losses.cross_entropy import CrossEntropyLoss
from segkit.losses.dice import DiceLoss
from segkit.types import Target

compound = pytest.importorskip("nnunetv2.training.loss.compound_losses", reason="nnU-Net is not installed")
dice = pytest.importorskip("nnunetv2.training.loss.dice")


def pair(batch_dice):
    """Ours, and nnU-Net's with label 3 ignored, on logits of three classes."""
    ours = WeightedSum({"dice": DiceLoss(batch_dice=batch_dice), "ce": CrossEntropyLoss()}, {"dice": 1.0, "ce": 1.0})
    settings = {"batch_dice": batch_dice, "smooth": 1e-5, "do_bg": False, "ddp": False}
    theirs = compound.DC_and_CE_loss(
        settings, {}, weight_ce=1, weight_dice=1, ignore_label=3, dice_class=dice.MemoryEfficientSoftDiceLoss
    )
    return ours, theirs


def labels():
    generator = torch.Generator().manual_seed(0)
    full = torch.randint(0, 3, (2, 1, 6, 5, 4), generator=generator)
    partly, absent, half = full.clone(), full.clone(), full.clone()
    partly[:, :, :2] = -1
    absent[absent == 2] = 0
    half[1] = -1
    return {
        "random": full,
        "partly ignored": partly,
        "a class absent": absent,
        "empty": torch.zeros_like(full),
        "one sample ignored": half,
        "everything ignored": torch.full_like(full, -1),
    }


@pytest.mark.parametrize("case", list(labels()))
@pytest.mark.parametrize("batch_dice", [False, True])
def test_differs_from_nnunets_by_one(case, batch_dice):
    label = labels()[case]
    ours, theirs = pair(batch_dice)
    values, gradients = [], []
    for compute in (
        lambda x: ours(x, Target(label=label)),
        lambda x: theirs(x, torch.where(label < 0, 3, label)) + 1,
    ):
        logits = torch.randn(2, 3, 6, 5, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
        value = compute(logits)
        value.backward()
        values.append(value.detach())
        gradients.append(logits.grad)
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)

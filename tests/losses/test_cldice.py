"""clDice: against MONAI for one sample and class, by hand, torn lines, and its edges."""

import pytest
import torch
from monai.losses import SoftclDiceLoss
from monai.losses.cldice import soft_skel
from tests.losses.voxelwise import certain, sample

from segkit.errors import UsageError
from segkit.losses.cldice import ClDiceLoss, cldice_loss
from segkit.ops.one_hot import one_hot
from segkit.types import Target

SHAPES = [(7, 6), (5, 6, 4)]


@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradient_equal_monai(shape):
    """MONAI sums over classes and samples before the ratio: equal for one of each. `smooth` is another addend."""
    logits, label = sample(shape, num_classes=2, batch=1)
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    monai = SoftclDiceLoss(iter_=3, include_background=False, softmax=True, smooth=1e-12)
    expected = monai(theirs, one_hot(label, 2, dtype=torch.float64))
    found = cldice_loss(ours, label, iterations=3)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    found.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("include_background", [False, True])
def test_equals_the_formula_by_sample_and_class(shape, activation, include_background):
    logits, label = sample(shape)
    p = logits.softmax(1) if activation == "softmax" else logits.sigmoid()
    losses = []
    for b in range(2):
        for k in range(0 if include_background else 1, 3):
            one, y = p[b, k], (label[b, 0] == k).double()
            of_p, of_y = (soft_skel(each[None, None], 2)[0, 0] for each in (one, y))
            precision = ((of_p * y).sum() + 0.5) / (of_p.sum() + 0.5)
            sensitivity = ((of_y * one).sum() + 0.5) / (of_y.sum() + 0.5)
            losses.append(1 - 2 / (1 / precision + 1 / sensitivity))
    settings = {"iterations": 2, "smooth": 0.5, "activation": activation, "include_background": include_background}
    torch.testing.assert_close(cldice_loss(logits, label, **settings), torch.stack(losses).mean())


def test_a_torn_line_costs_its_gap_and_a_thicker_one_nothing():
    label = torch.zeros(1, 1, 9, 20, dtype=torch.int64)
    label[..., 4, 2:18] = 1
    torn = label.clone()
    torn[..., 4, 8:12] = 0
    # Precision 1; sensitivity (12 + 1) / (16 + 1).
    expected = 1 - 2 * (13 / 17) / (1 + 13 / 17)
    assert cldice_loss(certain(torn, 2), label).item() == pytest.approx(expected, rel=1e-4)
    thick = label.clone()
    thick[..., 3:6, 1:19] = 1
    assert cldice_loss(certain(thick, 2), label).item() < 0.05


def test_false_alarms_and_misses_are_not_mixed_up():
    label = torch.zeros(1, 1, 9, 20, dtype=torch.int64)
    label[..., 4, 2:18] = 1
    longer = torch.zeros_like(label)
    longer[..., 4, :] = 1
    # Precision (16 + 1) / (20 + 1); sensitivity 1.
    expected = 1 - 2 * (17 / 21) / (1 + 17 / 21)
    assert cldice_loss(certain(longer, 2), label).item() == pytest.approx(expected, rel=1e-4)


def test_absent_classes():
    label = torch.zeros(1, 1, 6, 7, dtype=torch.int64)
    assert cldice_loss(certain(label, 2), label).item() == pytest.approx(0, abs=1e-6)
    line = label.clone()
    line[..., 3, 1:6] = 1
    assert cldice_loss(certain(line, 2), label).item() == pytest.approx(1 - 2 * (1 / 6) / (1 + 1 / 6), rel=1e-4)


def test_foreground_everywhere_is_why_it_is_no_loss_to_use_alone():
    label = torch.zeros(1, 1, 6, 7, dtype=torch.int64)
    label[..., 3, 1:6] = 1
    assert cldice_loss(certain(torch.ones_like(label), 2), label).item() == pytest.approx(0, abs=1e-6)
    assert not ClDiceLoss().usable_alone


@pytest.mark.parametrize("shape", SHAPES)
def test_an_ignored_part_is_as_if_it_were_not_there(shape):
    logits, label = sample(shape)
    label[..., -2:] = -1
    torch.testing.assert_close(cldice_loss(logits, label), cldice_loss(logits[..., :-2], label[..., :-2]))


def test_the_module_hands_on_its_settings():
    logits, label = sample((6, 5))
    settings = {"iterations": 1, "include_background": True, "smooth": 0.1, "activation": "sigmoid"}
    assert ClDiceLoss(**settings)(logits, Target(label)) == cldice_loss(logits, label, **settings)


def test_refuses_settings_without_a_meaning():
    with pytest.raises(UsageError, match=r"loss\.smooth"):
        ClDiceLoss(smooth=0.0)
    with pytest.raises(UsageError, match=r"loss\.iterations"):
        ClDiceLoss(iterations=-1)

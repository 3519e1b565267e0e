"""Band Dice: the band by its definition in mm, the loss by its formula, and its edges."""

import numpy as np
import pytest
import torch
from tests.losses.voxelwise import certain, nearest, sample

from segkit.errors import UsageError
from segkit.losses.band_dice import BandDiceLoss, boundary_band
from segkit.losses.dice import soft_dice_loss
from segkit.types import Target


def slow_band(label, width, spacing):
    label = label.numpy()[:, 0]
    band = np.zeros(label.shape, dtype=bool)
    for b, k in np.ndindex(len(label), 3):
        others = nearest((label[b] >= 0) & (label[b] != k), spacing)
        if others is not None:
            band[b] |= (label[b] == k) & (others <= width)
    return torch.from_numpy(band)[:, None]


@pytest.mark.parametrize(
    ("shape", "spacing"), [((9, 7), (1.0, 1.0)), ((9, 7), (0.5, 2.0)), ((5, 6, 4), (3.0, 0.8, 1.0))]
)
@pytest.mark.parametrize("width", [0.4, 1.0, 2.5, 100.0])
def test_the_band_is_what_lies_so_near_to_another_class(shape, spacing, width):
    _, label = sample(shape, ignored=0.2)
    label[0, :, :3] = 1
    label[1] = label[1].clamp_max(0)
    found = boundary_band(label, num_classes=3, width=width, spacing=spacing)
    assert torch.equal(found, slow_band(label, width, spacing))


def test_by_hand_in_mm():
    label = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1, 1]).view(1, 1, 1, 10)

    def band(width, spacing):
        found = boundary_band(label, num_classes=2, width=width, spacing=(1.0, spacing))
        return found.flatten().nonzero().flatten().tolist()

    assert band(1.0, 1.0) == [3, 4]
    assert band(2.9, 1.0) == [2, 3, 4, 5]
    assert band(3.0, 1.5) == [2, 3, 4, 5]
    assert band(0.9, 1.0) == []


def test_an_ignored_voxel_is_no_border():
    label = torch.tensor([0, 0, -1, 1, 1]).view(1, 1, 1, 5)
    assert not boundary_band(label, num_classes=2, width=1.0, spacing=(1.0, 1.0)).any()
    assert boundary_band(label, num_classes=2, width=2.0, spacing=(1.0, 1.0)).flatten().tolist() == [
        False,
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_loss_is_dice_of_both_parts(batch_dice, activation):
    label = torch.zeros(2, 1, 12, 10, dtype=torch.int64)
    label[0, 0, 2:8, 2:9] = 1
    label[1, 0, 5:, 4:] = 2
    label[1, 0, 0, 0] = -1
    logits, _ = sample((12, 10))
    spacing, settings = (1.5, 1.0), {"batch_dice": batch_dice, "activation": activation, "smooth": 0.1}
    band = slow_band(label, 2.0, spacing)
    of_band, of_rest = (soft_dice_loss(logits, torch.where(part, label, -1), **settings) for part in (band, ~band))
    loss = BandDiceLoss(width=2.0, band_weight=3.0, rest_weight=1.0, **settings)
    found = loss(logits, Target(label, spacing=spacing))
    torch.testing.assert_close(found, (3 * of_band + of_rest) / 4)


def test_the_weight_says_where_errors_count():
    label = torch.zeros(1, 1, 30, 30, dtype=torch.int64)
    label[..., 5:25, 5:25] = 1
    at_border, inside = label.clone(), label.clone()
    at_border[..., 5, 5:21] = 0
    inside[..., 13:17, 13:17] = 0

    def cost(predicted, **weights):
        return BandDiceLoss(width=2.0, **weights)(certain(predicted, 2), Target(label)).item()

    heavy_band, heavy_rest = {"band_weight": 9.0, "rest_weight": 1.0}, {"band_weight": 1.0, "rest_weight": 9.0}
    assert cost(at_border, **heavy_band) == pytest.approx(9 * cost(at_border, **heavy_rest), rel=1e-4)
    assert cost(inside, **heavy_rest) == pytest.approx(9 * cost(inside, **heavy_band), rel=1e-4)


def test_thinner_than_a_voxel_it_is_plain_dice():
    logits, label = sample((6, 5))
    found = BandDiceLoss(width=1.0)(logits, Target(label, spacing=(1.5, 2.0)))
    assert found == soft_dice_loss(logits, label)


def test_refuses_settings_without_a_meaning():
    for name in ("width", "band_weight", "rest_weight", "smooth"):
        with pytest.raises(UsageError, match=f"loss.{name}"):
            BandDiceLoss(**{name: 0.0})

"""Region Dice: components, then classes, then images; against the formula in a loop."""

import numpy as np
import pytest
import torch
from tests.losses.lesions import images, sample, target_of

from segkit.errors import UsageError
from segkit.losses.blob_dice import blob_dice_loss
from segkit.losses.region_dice import RegionDiceLoss, region_dice_loss

SHAPES = [(9, 8), (6, 5, 4)]


def slow(logits, target, *, false_positives, smooth, min_voxels, activation):
    by_image, alarms = [], []
    for image in images(logits, target, activation):
        components = image.components(min_voxels)
        by_class = {}
        for k, mask in components.items():
            outside = {
                "none": 0.0,
                "background": image.p_f[image.outside].sum(),
                "voronoi": image.background_in_cell(image.p_f, k, components),
            }[false_positives]
            dice = 2 * image.p_y[mask].sum() + smooth
            dice /= image.p_f[mask].sum() + outside + mask.sum() + smooth
            by_class.setdefault(int(image.label[mask][0]), []).append(1 - dice)
        if by_class:
            by_image.append(np.mean([np.mean(each) for each in by_class.values()]))
        elif false_positives != "none":
            alarms.append(image.p_f[image.outside].mean())
    return np.mean(by_image) + (np.mean(alarms) if alarms else 0.0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("false_positives", ["none", "background", "voronoi"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_equals_the_formula(shape, false_positives, activation):
    logits, target = sample(shape, num_classes=4)
    for min_voxels in (1, 2):
        settings = {"false_positives": false_positives, "smooth": 0.1}
        settings |= {"min_voxels": min_voxels, "activation": activation}
        found = region_dice_loss(logits, target, **settings)
        assert found.item() == pytest.approx(slow(logits, target, **settings), rel=1e-9)


def test_with_one_class_it_is_blob_dice():
    logits, target = sample((9, 8), num_classes=2)
    torch.testing.assert_close(region_dice_loss(logits, target), blob_dice_loss(logits, target))


def test_a_rare_class_counts_as_much_as_one_of_many_components():
    # Three components of class 1, found; one of class 2, missed: half is lost, where blob Dice loses a quarter.
    label = torch.tensor([1, 0, 1, 0, 1, 0, 0, 2])
    target = target_of(label.view(1, 1, -1).numpy())
    right = torch.where(label == 2, 0, label)
    logits = (80.0 * torch.nn.functional.one_hot(right, 3)).T.reshape(1, 3, 1, -1)
    assert region_dice_loss(logits, target).item() == pytest.approx(0.5, abs=1e-4)
    assert blob_dice_loss(logits, target).item() == pytest.approx(0.25, abs=1e-4)


def test_the_module_passes_its_settings_on():
    settings = {"false_positives": "none", "smooth": 1.0, "min_voxels": 2, "activation": "sigmoid"}
    logits, target = sample((9, 8))
    for given in ({}, settings):
        assert RegionDiceLoss(**given)(logits, target) == region_dice_loss(logits, target, **given)
    assert RegionDiceLoss().usable_alone
    assert not RegionDiceLoss(false_positives="none").usable_alone


def test_settings_are_checked():
    with pytest.raises(UsageError, match=r"loss\.min_voxels"):
        RegionDiceLoss(min_voxels=0)

"""Blob Dice: against the formula component by component, and at its edges."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.losses.lesions import images, sample, target_of

from segkit.errors import UsageError
from segkit.losses.blob_dice import BlobDiceLoss, blob_dice_loss
from segkit.metrics.component_dice import component_dice, mean_component_dice

SHAPES = [(9, 8), (6, 5, 4)]


def slow(logits, target, *, false_positives, batch_dice, smooth, min_voxels, activation):
    by_image, alarms = [], []
    for image in images(logits, target, activation):
        components = image.components(min_voxels)
        missing = []
        for k, mask in components.items():
            outside = {
                "none": 0.0,
                "background": image.p_f[image.outside].sum(),
                "voronoi": image.background_in_cell(image.p_f, k, components),
            }[false_positives]
            dice = 2 * image.p_y[mask].sum() + smooth
            dice /= image.p_f[mask].sum() + outside + mask.sum() + smooth
            missing.append(1 - dice)
        if missing:
            by_image.append(missing)
        elif false_positives != "none":
            alarms.append(image.p_f[image.outside].mean())
    found = np.mean(np.concatenate(by_image)) if batch_dice else np.mean([np.mean(each) for each in by_image])
    return found + (np.mean(alarms) if alarms else 0.0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("false_positives", ["none", "background", "voronoi"])
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_equals_the_formula(shape, false_positives, batch_dice, activation):
    logits, target = sample(shape)
    for min_voxels in (1, 3):
        settings = {"false_positives": false_positives, "batch_dice": batch_dice, "smooth": 0.1}
        settings |= {"min_voxels": min_voxels, "activation": activation}
        found = blob_dice_loss(logits, target, **settings)
        assert found.item() == pytest.approx(slow(logits, target, **settings), rel=1e-9)


def test_of_a_mask_it_is_the_metric():
    rng = np.random.default_rng(0)
    label = (rng.random((1, 12, 11)) < 0.1).astype(np.int64)
    guess = (rng.random((1, 12, 11)) < 0.3) | (label > 0)
    spacing = (1.0, 2.5)
    target = target_of(label, spacing=spacing)
    logits = torch.from_numpy(np.where(guess, 60.0, -60.0))
    loss = blob_dice_loss(torch.stack([torch.zeros_like(logits), logits], 1), target, smooth=1e-12)
    ids = target.instances[0, 0].numpy()
    metric = mean_component_dice(component_dice(ids, guess[0], spacing=spacing))
    assert loss.item() == pytest.approx(1 - metric, abs=1e-9)


@pytest.mark.parametrize("false_positives", ["none", "background", "voronoi"])
@pytest.mark.parametrize("batch_dice", [False, True])
def test_an_image_without_a_component_takes_nothing_from_the_gradient_of_another(false_positives, batch_dice):
    logits, target = sample((9, 8))
    alone = replace(target, **{name: getattr(target, name)[:2] for name in ("label", "instances", "cells")})
    together, apart = logits.clone().requires_grad_(), logits[:2].clone().requires_grad_()
    for x, y in ((together, target), (apart, alone)):
        blob_dice_loss(x, y, false_positives=false_positives, batch_dice=batch_dice).backward()
    torch.testing.assert_close(together.grad[:2], apart.grad)
    assert bool(together.grad[2].any()) is (false_positives != "none")


def test_foreground_everywhere_is_free_only_where_false_positives_are():
    target = target_of([[[1, 0, 0, 0, 0, 1, 1, 0, 0, 0]]])
    logits = torch.tensor([-40.0, 40.0]).view(1, 2, 1, 1).expand(1, 2, 1, 10)
    # Cells of 3 and 7 voxels: 1 - 2/(3 + 1) and 1 - 4/(7 + 2); against all 10: 1 - 2/(8 + 1) and 1 - 4/(9 + 2).
    expected = {"none": 0.0, "voronoi": (1 / 2 + 5 / 9) / 2, "background": (7 / 9 + 7 / 11) / 2}
    for false_positives, value in expected.items():
        loss = BlobDiceLoss(false_positives=false_positives)
        assert loss(logits, target).item() == pytest.approx(value, abs=1e-4)
        assert loss.usable_alone is (value > 0)
        assert loss.needs == {"cells" if false_positives == "voronoi" else "instances"}


def test_touching_objects_with_ids_are_objects_of_their_own():
    target = target_of([[[1, 1, 1, 1, 0, 0]]])
    given = torch.tensor([7, 7, 9, 9, 0, 0]).view(1, 1, 1, 6)
    annotated = replace(target, instances=given, num_instances=9)
    p = torch.tensor([0.9, 0.9, 0.1, 0.1, 0.0, 0.0])
    logits = torch.stack([(1 - p).log(), p.log().clamp(min=-40)]).view(1, 2, 1, 6)
    one, two = (blob_dice_loss(logits, y, false_positives="none") for y in (target, annotated))
    # One object: 1 - 4/(2 + 4). Two: those of 1.8/1.9 and 0.2/1.1.
    assert one.item() == pytest.approx(1 / 3, abs=1e-4)
    assert two.item() == pytest.approx(1 - (1.8 / 1.9 + 0.2 / 1.1) / 2, abs=1e-4)


def test_everything_ignored_is_zero_with_a_zero_gradient():
    logits, target = sample((9, 8))
    logits.requires_grad_()
    loss = blob_dice_loss(logits, replace(target, label=torch.full_like(target.label, -1)))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.count_nonzero() == 0


def test_the_module_passes_its_settings_on():
    settings = {"false_positives": "background", "batch_dice": True, "smooth": 1.0, "min_voxels": 2}
    logits, target = sample((9, 8))
    for given in ({}, {**settings, "activation": "sigmoid"}):
        assert BlobDiceLoss(**given)(logits, target) == blob_dice_loss(logits, target, **given)


def test_settings_are_checked():
    with pytest.raises(UsageError, match=r"loss\.smooth"):
        BlobDiceLoss(smooth=0.0)

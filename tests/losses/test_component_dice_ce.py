"""Component Dice and cross-entropy: against the formula cell by cell, and at its edges."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.losses.lesions import images, sample, target_of

from segkit.errors import UsageError
from segkit.losses.component_dice_ce import ComponentDiceCELoss, component_dice_ce_loss
from segkit.losses.cross_entropy import cross_entropy_loss
from segkit.losses.dice import soft_dice_loss

SHAPES = [(9, 8), (6, 5, 4)]


def slow(logits, target, *, empty, smooth, min_voxels, activation):
    logarithms = logits.shape[1] if activation == "sigmoid" else 1
    by_image, plain = [], []
    for image in images(logits, target, activation):
        components = image.components(min_voxels)
        one = np.ones_like(image.p_f)
        parts = []
        for k, mask in components.items():
            outside = {
                name: image.background_in_cell(value, k, components)
                for name, value in {"p": image.p_f, "surprise": image.surprise, "voxels": one}.items()
            }
            dice = (2 * image.p_y[mask].sum() + smooth) / (image.p_f[mask].sum() + outside["p"] + mask.sum() + smooth)
            surprise = (image.surprise[mask].sum() + outside["surprise"]) / (mask.sum() + outside["voxels"])
            parts.append(1 - dice + surprise / logarithms)
        if parts:
            by_image.append(np.mean(parts))
        elif empty == "global":
            dice = smooth / (image.p_f[image.outside].sum() + smooth)
            plain.append(1 - dice + image.surprise[image.outside].mean() / logarithms)
    return np.mean(by_image) + (np.mean(plain) if plain else 0.0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("empty", ["global", "nothing"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_equals_the_formula(shape, empty, activation):
    logits, target = sample(shape)
    for min_voxels in (1, 3):
        settings = {"empty": empty, "smooth": 0.1, "min_voxels": min_voxels, "activation": activation}
        found = component_dice_ce_loss(logits, target, **settings)
        assert found.item() == pytest.approx(slow(logits, target, **settings), rel=1e-9)


@pytest.mark.parametrize("label", [np.zeros((2, 4, 6)), np.pad(np.ones((2, 2, 2)), ((0, 0), (1, 1), (3, 1)))])
def test_one_component_and_none_are_plain_dice_and_cross_entropy(label):
    target = target_of(label.astype(np.int64))
    logits = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 2, 4, 6)))
    plain = soft_dice_loss(logits, target.label) + cross_entropy_loss(logits, target.label)
    torch.testing.assert_close(component_dice_ce_loss(logits, target), plain)


@pytest.mark.parametrize("empty", ["global", "nothing"])
def test_an_image_without_a_component_takes_nothing_from_the_gradient_of_another(empty):
    logits, target = sample((9, 8))
    alone = replace(target, **{name: getattr(target, name)[:2] for name in ("label", "instances", "cells")})
    together, apart = logits.clone().requires_grad_(), logits[:2].clone().requires_grad_()
    for x, y in ((together, target), (apart, alone)):
        component_dice_ce_loss(x, y, empty=empty).backward()
    torch.testing.assert_close(together.grad[:2], apart.grad)
    assert bool(together.grad[2].any()) is (empty == "global")


def test_a_voxel_that_is_surely_wrong_still_has_a_gradient():
    """Where a probability is clamped at 1e-7 before its logarithm, there is none."""
    target = target_of([[[1, 0, 0, 0]]])
    logits = torch.tensor([[[[40.0, 0.0, 0.0, 0.0]], [[-40.0, 0.0, 0.0, 0.0]]]], requires_grad=True)
    component_dice_ce_loss(logits, target).backward()
    # One cell of four voxels: the surprise of a voxel has weight 1/4.
    assert logits.grad[0, :, 0, 0].tolist() == pytest.approx([0.25, -0.25], abs=1e-6)


def test_the_module_passes_its_settings_on():
    settings = {"empty": "nothing", "smooth": 1.0, "min_voxels": 2, "activation": "sigmoid"}
    logits, target = sample((9, 8))
    for given in ({}, settings):
        assert ComponentDiceCELoss(**given)(logits, target) == component_dice_ce_loss(logits, target, **given)


def test_settings_are_checked():
    with pytest.raises(UsageError, match=r"loss\.smooth"):
        ComponentDiceCELoss(smooth=-1.0)

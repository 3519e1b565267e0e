"""Blob loss: against the definition component by component, and against what the published code computes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.losses.lesions import images, sample, target_of
from torch.nn import functional as F

from segkit.errors import UsageError
from segkit.losses.blob import BlobLoss, blob_loss

SHAPES = [(9, 8), (6, 5, 4)]


def slow(logits, target, *, smooth, min_voxels, activation):
    """The paper: Dice and cross-entropy over the voxels of the background and of component k, no others."""
    logarithms = logits.shape[1] if activation == "sigmoid" else 1
    by_image = []
    for image in images(logits, target, activation):
        parts = []
        for mask in image.components(min_voxels).values():
            voxels = mask | image.outside
            dice = (2 * image.p_y[mask].sum() + smooth) / (image.p_f[voxels].sum() + mask.sum() + smooth)
            parts.append(1 - dice + image.surprise[voxels].mean() / logarithms)
        if parts:
            by_image.append(np.mean(parts))
    return np.mean(by_image)


def published(output, blobs, *, smooth):
    """What the published code does for one channel: the logits of all other blobs are multiplied by zero."""
    by_element = []
    for element in range(len(output)):
        losses = []
        for blob in blobs[element].unique().tolist():
            if blob == 0:
                continue
            truth = (blobs[element] == blob).to(output.dtype)
            masked = output[element] * ((blobs[element] == 0) | (blobs[element] == blob))
            p = masked.sigmoid()
            dice = (2 * (p * truth).sum() + smooth) / (p.sum() + truth.sum() + smooth)
            losses.append(1 - dice + F.binary_cross_entropy_with_logits(masked, truth))
        if losses:
            by_element.append(sum(losses) / len(losses))
    return sum(by_element) / len(by_element)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_equals_the_definition(shape, activation):
    logits, target = sample(shape)
    for min_voxels in (1, 3):
        settings = {"smooth": 0.1, "min_voxels": min_voxels, "activation": activation}
        found = blob_loss(logits, target, **settings)
        assert found.item() == pytest.approx(slow(logits, target, **settings), rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_reference_mode_is_the_published_code(shape):
    """One channel under a sigmoid is two classes under a softmax, with 0 as the logit of the background."""
    rng = np.random.default_rng(0)
    target = target_of((rng.random((3, *shape)) < 0.2).astype(np.int64))
    one = torch.from_numpy(rng.standard_normal((3, *shape)))
    two = one.clone().requires_grad_()
    one.requires_grad_()
    expected = published(one, target.instances[:, 0], smooth=0.1)
    found = blob_loss(torch.stack([torch.zeros_like(two), two], 1), target, mode="reference", smooth=0.1)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(
        *(torch.autograd.grad(value, x)[0] for value, x in ((found, two), (expected, one))), rtol=1e-9, atol=1e-14
    )
    excluded = blob_loss(torch.stack([torch.zeros_like(two), two], 1), target, smooth=0.1)
    assert abs(excluded.item() - found.item()) > 1e-5


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_reference_mode_has_other_components_enter_with_logits_of_zero(activation):
    logits, target = sample((9, 8))
    target = replace(target, label=target.label.clamp(min=0))
    by_image = []
    for number in range(2):
        label, ids = target.label[number], target.instances[number]
        losses = []
        for k in ids[label > 0].unique().tolist():
            other = (label > 0) & (ids != k)
            own = (ids * (ids == k))[None]
            lone = replace(target, label=label.masked_fill(other, 0)[None], instances=own, cells=None)
            losses.append(blob_loss(logits[number].masked_fill(other, 0.0)[None], lone, activation=activation))
        by_image.append(sum(losses) / len(losses))
    found = blob_loss(logits, target, mode="reference", activation=activation)
    torch.testing.assert_close(found, sum(by_image) / 2)


def test_other_components_do_not_matter_to_one():
    # Two components; the gradient of a voxel in one is half of what it is when the other is no part of the image.
    target = target_of([[[1, 1, 0, 0, 1]]])
    logits = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 2, 1, 5))).requires_grad_()
    (both,) = torch.autograd.grad(blob_loss(logits, target), logits)
    alone = replace(target, label=target.label.masked_fill(target.instances == 2, -1))
    (one,) = torch.autograd.grad(blob_loss(logits, alone), logits)
    torch.testing.assert_close(2 * both[..., :2], one[..., :2])


def test_an_image_without_a_component_costs_nothing_and_takes_nothing():
    logits, target = sample((9, 8))
    alone = replace(target, **{name: getattr(target, name)[:2] for name in ("label", "instances", "cells")})
    together, apart = logits.clone().requires_grad_(), logits[:2].clone().requires_grad_()
    for x, y in ((together, target), (apart, alone)):
        blob_loss(x, y).backward()
    torch.testing.assert_close(together.grad[:2], apart.grad)
    assert together.grad[2].count_nonzero() == 0


def test_no_component_anywhere_is_zero_with_a_graph():
    logits = torch.zeros(1, 2, 3, 3, requires_grad=True)
    loss = blob_loss(logits, target_of(np.zeros((1, 3, 3), dtype=np.int64)))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.count_nonzero() == 0


def test_the_module_passes_its_settings_on():
    settings = {"mode": "reference", "smooth": 1.0, "min_voxels": 2, "activation": "sigmoid"}
    logits, target = sample((9, 8))
    for given in ({}, settings):
        assert BlobLoss(**given)(logits, target) == blob_loss(logits, target, **given)


def test_settings_are_checked():
    with pytest.raises(UsageError, match=r"loss\.min_voxels"):
        BlobLoss(min_voxels=0)

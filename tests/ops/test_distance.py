"""Distances to masks: against the definition, scipy beside the passes by axis, and what has no distance."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from segkit.ops import distance as module
from segkit.ops.dilation import within_distance
from segkit.ops.distance import distance_to, near, signed_distance

GRIDS = [((9, 7), (1.0, 1.0)), ((9, 7), (0.4, 3.0)), ((5, 6, 4), (1.0, 1.0, 1.0)), ((5, 6, 4), (3.0, 0.7, 1.1))]


def masks(shape, seed=0, share=0.2):
    return torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(seed)) < share


def slow_distance(mask, spacing):
    """The definition for one mask: every voxel against every voxel of the mask."""
    inside = np.argwhere(mask.numpy())
    result = torch.full(mask.shape, math.inf)
    for voxel in itertools.product(*map(range, mask.shape)):
        if len(inside):
            result[voxel] = np.linalg.norm((inside - voxel) * spacing, axis=1).min()
    return result


@pytest.fixture(params=["scipy", "by axes", "by axes in pieces"])
def way(request, monkeypatch):
    """The way that the CPU takes, and that of other devices, here on the CPU."""
    if request.param == "scipy":
        return distance_to
    if request.param == "by axes in pieces":
        monkeypatch.setattr(module, "_SUMS_AT_ONCE", 100)
    return module._distance_by_axes


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_is_the_distance_to_the_nearest_voxel(way, shape, spacing):
    mask = masks(shape)
    mask[0, 1] = False
    mask[1, 2] = True
    found = way(mask, spacing)
    assert found.dtype == torch.float32
    for b, k in itertools.product(range(2), range(3)):
        torch.testing.assert_close(found[b, k], slow_distance(mask[b, k], spacing), rtol=1e-6, atol=0)


def test_by_hand_in_mm(way):
    mask = torch.zeros(1, 1, 3, 4, dtype=torch.bool)
    mask[0, 0, 0, 0] = True
    expected = [[0, 3, 6, 9], [4, 5, 52**0.5, 97**0.5], [8, 73**0.5, 10, 145**0.5]]
    torch.testing.assert_close(way(mask, (4.0, 3.0))[0, 0], torch.tensor(expected))


def test_far_in_a_large_image(way):
    mask = torch.zeros(1, 1, 512, 40, dtype=torch.bool)
    mask[0, 0, 500, 3] = True
    expected = math.hypot(0.488 * 500, 9.77 * 36)
    assert way(mask, (0.488, 9.77))[0, 0, 0, 39].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_signed_is_the_way_to_the_other_side(shape, spacing):
    mask = masks(shape, share=0.5)
    found = signed_distance(mask, spacing)
    torch.testing.assert_close(found, distance_to(mask, spacing) - distance_to(~mask, spacing))
    assert ((found < 0) == mask).all()
    torch.testing.assert_close(signed_distance(~mask, spacing), -found)


def test_without_a_border_there_is_no_distance():
    mask = torch.zeros(1, 2, 4, 5, dtype=torch.bool)
    mask[:, 1] = True
    assert signed_distance(mask, (1.0, 1.0)).count_nonzero() == 0


def test_what_is_not_known_is_no_border():
    mask = torch.tensor([0, 0, 0, 1, 1, 0, 0], dtype=torch.bool).view(1, 1, 1, 7)
    known = torch.tensor([1, 1, 0, 1, 1, 0, 1], dtype=torch.bool).view(1, 1, 1, 7)
    expected = torch.tensor([3.0, 2, 0, -2, -2, 0, 2]).view(1, 1, 1, 7)
    assert torch.equal(signed_distance(mask, (1.0, 1.0), known=known), expected)
    nothing = torch.zeros_like(known)
    assert signed_distance(mask, (1.0, 1.0), known=nothing).count_nonzero() == 0
    assert signed_distance(mask, (1.0, 1.0), known=mask).count_nonzero() == 0


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
@pytest.mark.parametrize("distance", [0.0, 0.7, 1.0, 2.2, 50.0])
def test_near_is_within_the_distance(shape, spacing, distance):
    mask = masks(shape, share=0.05)
    mask[0, 0] = False
    found = near(mask, distance, spacing)
    for b, k in itertools.product(range(2), range(3)):
        expected = within_distance(mask[b, k].numpy(), distance, spacing)
        assert np.array_equal(found[b, k].numpy(), expected)


def test_near_takes_rounded_spacing_as_what_it_stands_for():
    mask = torch.zeros(1, 1, 1, 6, dtype=torch.bool)
    mask[..., 0] = True
    assert near(mask, 3.0, (1.0, 1.0000002)).sum() == 4
    assert near(mask, 2.99, (1.0, 1.0)).sum() == 3


def test_tensors_without_memory_go_through():
    with FakeTensorMode():
        mask = torch.empty(2, 3, 4, 5, dtype=torch.bool)
        assert signed_distance(mask, (1.0, 1.0)).shape == mask.shape
        assert near(mask, 2.0, (1.0, 1.0)).shape == mask.shape


def test_refuses_what_is_no_distance():
    mask = masks((4, 5))
    for call in (distance_to, signed_distance):
        with pytest.raises(ValueError, match="spacing"):
            call(mask, (1.0,))
        with pytest.raises(ValueError, match="spacing"):
            call(mask, (1.0, 0.0))
    with pytest.raises(ValueError, match="-1"):
        near(mask, -1.0, (1.0, 1.0))


@pytest.mark.gpu
@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_the_device_finds_the_same(shape, spacing):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    mask = masks(shape)
    torch.testing.assert_close(distance_to(mask.cuda(), spacing).cpu(), distance_to(mask, spacing))
    assert torch.equal(near(mask.cuda(), 1.5, spacing).cpu(), near(mask, 1.5, spacing))

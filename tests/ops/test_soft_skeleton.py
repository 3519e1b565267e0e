"""Soft skeletons: scipy's morphology, MONAI's soft skeleton, what is left of known shapes, and voxels not known."""

import numpy as np
import pytest
import torch
from monai.losses.cldice import soft_skel
from scipy import ndimage

from segkit.ops.soft_skeleton import dilate, erode, soft_skeleton

SHAPES = [(7, 6), (5, 6, 4)]


def soft_mask(shape, seed=0, dtype=torch.float64):
    return torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_erosion_and_dilation_are_scipys(shape):
    value = soft_mask(shape)
    faces, corners = (ndimage.generate_binary_structure(len(shape), to) for to in (1, len(shape)))
    for b, c in np.ndindex(2, 3):
        one = value[b, c].numpy()
        eroded = ndimage.grey_erosion(one, footprint=faces, mode="constant", cval=np.inf)
        dilated = ndimage.grey_dilation(one, footprint=corners, mode="constant", cval=-np.inf)
        assert np.array_equal(erode(value)[b, c].numpy(), eroded)
        assert np.array_equal(dilate(value)[b, c].numpy(), dilated)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_value_and_gradient_equal_monai(shape, iterations):
    ours, theirs = (soft_mask(shape).requires_grad_() for _ in range(2))
    found, expected = soft_skeleton(ours, iterations=iterations), soft_skel(theirs, iterations)
    torch.testing.assert_close(found, expected)
    weight = soft_mask(shape, seed=1)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("shape", [(4, 3), (3, 4, 2)])
def test_gradient_equals_differences(shape):
    value = soft_mask(shape).requires_grad_()
    known = soft_mask(shape, seed=2)[:, :1] > 0.2
    assert torch.autograd.gradcheck(lambda x: soft_skeleton(x, iterations=2), value)
    assert torch.autograd.gradcheck(lambda x: soft_skeleton(x, iterations=2, known=known), value)


def test_ties_share_the_derivative():
    value = torch.tensor([0.2, 0.2, 0.7, 0.2]).view(1, 1, 1, 4).requires_grad_()
    erode(value).sum().backward()
    # Minima over {0, 1}, {0, 1, 2}, {1, 2, 3} and {2, 3}, each shared by those that are 0.2.
    assert value.grad.flatten().tolist() == pytest.approx([1.0, 1.5, 0.0, 1.5])


@pytest.mark.parametrize("axis", [2, 3, 4])
def test_a_line_is_its_skeleton(axis):
    line = torch.zeros(1, 1, 9, 9, 9)
    place = [0, 0, 4, 4, 4]
    place[axis] = slice(1, 8)
    line[tuple(place)] = 1
    assert torch.equal(soft_skeleton(line, iterations=3), line)


@pytest.mark.parametrize("shape", [(9, 15), (9, 9, 15)])
def test_of_a_bar_its_middle_is_left(shape):
    bar = torch.zeros(1, 1, *shape)
    bar[(..., *[slice(2, 7)] * (len(shape) - 1), slice(1, 14))] = 1
    skeleton = soft_skeleton(bar, iterations=3)
    middle = (0, 0, *[4] * (len(shape) - 1), slice(4, 11))
    assert (skeleton[middle] == 1).all()
    assert set(skeleton.unique().tolist()) == {0.0, 1.0}
    assert (skeleton <= bar).all()
    assert skeleton.sum() < 0.5 * bar.sum()
    short = soft_skeleton(bar, iterations=0)
    assert short[middle].count_nonzero() == 0, "too few erosions never reach the middle"


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_and_everything_have_no_skeleton(shape):
    for value in (torch.zeros, torch.ones):
        assert soft_skeleton(value(1, 1, *shape), iterations=3).count_nonzero() == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_not_known_does_not_matter(shape):
    value, known = soft_mask(shape), soft_mask(shape, seed=3)[:, :1] > 0.3
    other = torch.where(known, value, 1 - value)
    found = soft_skeleton(value, iterations=2, known=known)
    assert torch.equal(found, soft_skeleton(other, iterations=2, known=known))
    assert found.where(~known, 0).count_nonzero() == 0
    everything = torch.ones_like(known)
    assert torch.equal(soft_skeleton(value, iterations=2, known=everything), soft_skeleton(value, iterations=2))


def test_what_is_not_known_is_as_beyond_the_edge():
    value = soft_mask((6, 8))
    known = torch.ones(2, 1, 6, 8, dtype=torch.bool)
    known[..., 5:] = False
    found = soft_skeleton(value, iterations=2, known=known)
    assert torch.equal(found[..., :5], soft_skeleton(value[..., :5], iterations=2))

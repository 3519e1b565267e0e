import numpy as np
import pytest
import torch

from segkit.augmentation.warp import (
    centre_crop,
    fold,
    lines_inside,
    make_sampling,
    may_leave,
    patch_centre,
    sample_linear,
    sample_lines,
    sample_nearest,
    scaled_lines,
    unfold,
)

SHAPES = [((9, 11), (9, 11)), ((12, 11), (7, 6)), ((9, 10, 11), (5, 7, 4)), ((8, 8, 8), (8, 8, 8))]


@pytest.mark.parametrize(("source", "patch"), SHAPES)
def test_identity_is_the_centre_crop_to_the_bit_for_labels(source: tuple[int, ...], patch: tuple[int, ...]):
    image = torch.randn(2, 3, *source)
    label = torch.randint(-1, 1 << 40, (2, 1, *source))
    sampling = make_sampling(np.stack([np.eye(len(patch))] * 2), source, patch)
    assert torch.equal(sample_nearest(label, sampling), centre_crop(label, patch))
    for together in (False, True):
        sampled = sample_linear(image, sampling, together=together)
        torch.testing.assert_close(sampled, centre_crop(image, patch), atol=1e-4, rtol=1e-4)
    assert sampling.inside is not None
    assert sampling.inside.all()
    assert not may_leave(np.eye(len(patch)), source, patch)


def test_centre_is_the_middle_of_the_crop():
    for source, patch in SHAPES:
        for middle, have, want in zip(patch_centre(source, patch), source, patch, strict=True):
            voxels = torch.arange(have)[(have - want) // 2 :][:want]
            assert middle == voxels.double().mean()


@pytest.mark.parametrize("together", [False, True])
def test_coordinates_are_the_affine_map(together: bool):
    source, patch = (14, 17, 11), (6, 5, 7)
    matrix = torch.randn(1, 3, 3) * 0.5
    coordinates = torch.stack(torch.meshgrid(*(torch.arange(n).float() for n in source), indexing="ij"))
    sampling = make_sampling(matrix.numpy(), source, patch)
    got = sample_linear(coordinates[None], sampling, together=together)[0]
    offsets = torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in patch), indexing="ij")
    centre = torch.tensor(patch_centre(source, patch))
    expected = torch.einsum("rc,cxyz->rxyz", matrix[0], torch.stack(offsets)) + centre[:, None, None, None]
    limits = torch.tensor(source)[:, None, None, None] - 1.0
    interior = ((expected >= 0) & (expected <= limits)).all(0)
    assert interior.float().mean() > 0.5
    torch.testing.assert_close(got[:, interior], expected[:, interior], atol=1e-4, rtol=0)


def test_outside_is_zero_and_known():
    image, mask = torch.ones(1, 1, 8, 8), torch.ones(1, 1, 8, 8, dtype=torch.bool)
    sampling = make_sampling(2 * np.eye(2)[None], (8, 8), (8, 8))
    warped, inside = sample_linear(image, sampling), sample_nearest(mask, sampling)
    assert torch.equal(inside[:, 0], sampling.inside)
    assert inside.sum() == 16  # the patch covers twice the extent of the source: a quarter of its area is filled
    assert torch.equal(warped, inside.float())  # no darker rim


@pytest.mark.parametrize(("source", "patch"), [((9, 10, 11), (5, 7, 4)), ((6, 1, 7), (6, 1, 3)), ((12, 11), (7, 6))])
def test_corner_by_corner_equals_grid_sample_inside_and_beyond_the_edges(source, patch):
    image = torch.randn(2, 3, *source)
    matrices = np.random.default_rng(0).normal(size=(2, len(patch), len(patch)))
    sampling = make_sampling(matrices, source, patch)
    assert sampling.inside is not None
    assert 0 < sampling.inside.float().mean() < 1
    corners, grid = (sample_linear(image, sampling, together=together) for together in (False, True))
    torch.testing.assert_close(corners, grid, atol=1e-4, rtol=0)
    # edge values continue: the same, without the mask
    free = make_sampling(matrices, source, patch, leaves=False)
    corners, grid = (sample_linear(image, free, together=together) for together in (False, True))
    torch.testing.assert_close(corners, grid, atol=1e-4, rtol=0)


def test_planes_put_together_are_the_whole():
    image, label = torch.randn(1, 2, 9, 10, 11), torch.randint(0, 9, (1, 1, 9, 10, 11))
    matrix = np.eye(3)[None] + np.random.default_rng(1).normal(size=(1, 3, 3)) * 0.2
    parts = [make_sampling(matrix, (9, 10, 11), (7, 6, 8), planes=slice(k, k + 3)) for k in (0, 3, 6)]
    whole = make_sampling(matrix, (9, 10, 11), (7, 6, 8))
    assert torch.equal(torch.cat([sample_linear(image, one) for one in parts], 2), sample_linear(image, whole))
    assert torch.equal(torch.cat([sample_nearest(label, one) for one in parts], 2), sample_nearest(label, whole))


def test_a_patch_that_may_leave_is_known_beforehand():
    """Never said of no patch that does leave; said of none that stays well inside."""
    rng, seen = np.random.default_rng(2), set()
    for _ in range(200):
        matrix = np.eye(3) + rng.normal(size=(3, 3)) * 0.25
        sampling = make_sampling(matrix[None], (12, 13, 15), (9, 9, 10))
        stays = bool(sampling.inside.all())
        assert stays or may_leave(matrix, (12, 13, 15), (9, 9, 10))
        assert not stays or not may_leave(matrix * 0.95, (12, 13, 15), (9, 9, 10))
        seen.add(stays)
    assert seen == {True, False}


@pytest.mark.parametrize("scale", [0.7, 1.0, 1.4])
@pytest.mark.parametrize(("source", "patch"), [((12, 14, 13), (9, 10, 11)), ((6, 1, 7), (6, 1, 7)), ((15, 11), (9, 9))])
def test_axis_by_axis_equals_voxel_by_voxel(source, patch, scale: float):
    image, label = torch.randn(1, 2, *source), torch.randint(-1, 1 << 40, (1, 1, *source))
    factors = [scale * sign for sign in (1, -1, 1)[: len(patch)]]
    sampling, lines = make_sampling(np.diag(factors)[None], source, patch), scaled_lines(factors, source, patch)
    inside = lines_inside(lines, source)
    assert torch.equal(torch.ones(patch, dtype=torch.bool) if inside is None else inside, sampling.inside[0])
    for field, linear, expected in (
        (image, True, sample_linear(image, sampling)),
        (label, False, sample_nearest(label, sampling)),
    ):
        got = sample_lines(field, lines, linear=linear)
        got = got if inside is None else got.masked_fill(~inside, 0)
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


def test_fold_and_unfold():
    field = torch.randn(2, 3, 4, 5, 6)
    for axis in (0, 1, 2, None):
        folded = fold(field, axis)
        assert torch.equal(unfold(folded, axis, 3), field)
    assert fold(field, 1).shape == (2, 15, 4, 6)
    assert torch.equal(fold(field, 1)[:, 7], field[:, 1, :, 2])

import pytest
import torch

from segkit.augmentation.warp import (
    centre_crop,
    fold,
    make_sampling,
    patch_centre,
    sample_linear,
    sample_nearest,
    unfold,
)

SHAPES = [((9, 11), (9, 11)), ((12, 11), (7, 6)), ((9, 10, 11), (5, 7, 4)), ((8, 8, 8), (8, 8, 8))]


@pytest.mark.parametrize(("source", "patch"), SHAPES)
def test_identity_is_the_centre_crop_to_the_bit_for_labels(source: tuple[int, ...], patch: tuple[int, ...]):
    image = torch.randn(2, 3, *source)
    label = torch.randint(-1, 1 << 40, (2, 1, *source))
    sampling = make_sampling(torch.eye(len(patch)).expand(2, -1, -1), source, patch)
    assert torch.equal(sample_nearest(label, sampling), centre_crop(label, patch))
    torch.testing.assert_close(sample_linear(image, sampling), centre_crop(image, patch), atol=1e-4, rtol=1e-4)
    assert sampling.inside.all()


def test_centre_is_the_middle_of_the_crop():
    for source, patch in SHAPES:
        for middle, have, want in zip(patch_centre(source, patch), source, patch, strict=True):
            voxels = torch.arange(have)[(have - want) // 2 :][:want]
            assert middle == voxels.double().mean()


def test_coordinates_are_the_affine_map():
    source, patch = (14, 17, 11), (6, 5, 7)
    matrix = torch.randn(1, 3, 3) * 0.5
    coordinates = torch.stack(torch.meshgrid(*(torch.arange(n).float() for n in source), indexing="ij"))
    sampling = make_sampling(matrix, source, patch)
    got = sample_linear(coordinates[None], sampling)[0]
    offsets = torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in patch), indexing="ij")
    centre = torch.tensor(patch_centre(source, patch))
    expected = torch.einsum("rc,cxyz->rxyz", matrix[0], torch.stack(offsets)) + centre[:, None, None, None]
    limits = torch.tensor(source)[:, None, None, None] - 1.0
    interior = ((expected >= 0) & (expected <= limits)).all(0)
    assert interior.float().mean() > 0.5
    torch.testing.assert_close(got[:, interior], expected[:, interior], atol=1e-4, rtol=0)


def test_outside_is_zero_and_known():
    image, mask = torch.ones(1, 1, 8, 8), torch.ones(1, 1, 8, 8, dtype=torch.bool)
    sampling = make_sampling(2 * torch.eye(2)[None], (8, 8), (8, 8))
    warped, inside = sample_linear(image, sampling), sample_nearest(mask, sampling)
    assert torch.equal(inside[:, 0], sampling.inside)
    assert inside.sum() == 16  # the patch covers twice the extent of the source: a quarter of its area is filled
    assert torch.equal(warped, inside.float())  # no darker rim


def test_fold_and_unfold():
    field = torch.randn(2, 3, 4, 5, 6)
    for axis in (0, 1, 2, None):
        folded = fold(field, axis)
        assert torch.equal(unfold(folded, axis, 3), field)
    assert fold(field, 1).shape == (2, 15, 4, 6)
    assert torch.equal(fold(field, 1)[:, 7], field[:, 1, :, 2])

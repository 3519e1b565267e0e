import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from segkit.augmentation.spatial import (
    Spatial,
    SpatialDraw,
    place,
    rotation_limit,
    rotation_matrix,
    source_matrix,
    source_size,
)
from segkit.augmentation.warp import centre_crop, patch_centre
from segkit.errors import DataError, UsageError
from segkit.types import Batch, Target

STILL3 = (False, False, False)


def coordinate_batch(source: tuple[int, ...], count: int = 1) -> Batch:
    """Image channels hold each voxel's own coordinates, the label its own number: linear interpolation of a linear
    function is exact, so an image says where it was taken and the label where *it* was taken."""
    grid = torch.stack(torch.meshgrid(*(torch.arange(n).float() for n in source), indexing="ij"))
    number = torch.arange(int(np.prod(source))).reshape(1, 1, *source).expand(count, -1, *source).contiguous()
    target = Target(label=number, instances=number + 1, cells=number + 2, weight=number.float())
    return Batch(
        image=grid.expand(count, *grid.shape).contiguous(),
        target=target,
        valid=None,
        case_id=("case",) * count,
        n=tuple(range(count)),
    )


def distance_of_label(placed: Batch, source: tuple[int, ...], label: torch.Tensor) -> torch.Tensor:
    """Largest distance by axis between where the image and where the label of a voxel came from."""
    came_from = np.stack(np.unravel_index(label[:, 0].numpy(), source), axis=1)
    inside = placed.valid[:, 0] if placed.valid is not None else torch.ones_like(label[:, 0], dtype=torch.bool)
    distance = (placed.image - torch.from_numpy(came_from)).abs().amax(1)
    return distance[inside]


CASES = [
    ((30, 33), (18, 21), (25.0,)),
    ((30, 33), (18, 21), (-140.0,)),
    ((25, 28, 30), (14, 17, 15), (20.0, -30.0, 10.0)),
    ((25, 28, 30), (15, 16, 17), (0.0, 0.0, 30.0)),
    ((6, 40, 41), (6, 21, 22), (70.0,)),  # thick slices along axis 0
    ((40, 6, 41), (21, 6, 22), (-33.0,)),  # ... axis 1
    ((40, 41, 6), (21, 22, 6), (110.0,)),  # ... axis 2
]


@pytest.mark.parametrize(("source", "patch", "angles"), CASES)
@pytest.mark.parametrize("scale", [None, 0.8, 1.3])
def test_label_and_image_agree_voxel_for_voxel(source, patch, angles, scale):
    batch = coordinate_batch(source)
    for flips in itertools.product((False, True), repeat=len(patch)):
        placed = place(batch, [SpatialDraw(flips=flips, angles=angles, scale=scale)], patch)
        inside = torch.ones_like(placed.target.label, dtype=torch.bool) if placed.valid is None else placed.valid
        assert inside.float().mean() > 0.3
        # The nearest voxel is at most half a voxel away along each axis, everywhere.
        assert distance_of_label(placed, source, placed.target.label).max() <= 0.5 + 1e-3
        for axis in range(len(patch)):  # a label that is one voxel off is caught
            shifted = placed.target.label.roll(1, axis + 2)
            assert distance_of_label(placed, source, shifted).median() > 0.5
        assert torch.equal(placed.target.instances[inside], placed.target.label[inside] + 1)
        assert torch.equal(placed.target.cells[inside], placed.target.label[inside] + 2)
        assert torch.equal(placed.target.weight[inside], placed.target.label[inside].float())


@pytest.mark.parametrize(("source", "patch", "angles"), CASES[2:4])
def test_image_comes_from_where_the_matrix_says(source, patch, angles):
    draw = SpatialDraw(flips=(False, True, False), angles=angles, scale=0.9)
    placed = place(coordinate_batch(source), [draw], patch)
    offsets = torch.stack(torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in patch), indexing="ij")).double()
    offsets[1] *= -1  # the patch is mirrored after it was turned
    expected = torch.einsum("rc,cxyz->rxyz", torch.from_numpy(source_matrix(draw, 3)), offsets)
    expected += torch.tensor(patch_centre(source, patch)).double()[:, None, None, None]
    interior = ((expected >= 0) & (expected <= torch.tensor(source)[:, None, None, None] - 1)).all(0)
    torch.testing.assert_close(placed.image[0][:, interior].double(), expected[:, interior], atol=1e-3, rtol=0)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("turns", [1, 2, -1])
def test_quarter_turns_equal_rot90_in_3d(axis: int, turns: int):
    image, label = torch.randn(1, 2, 21, 21, 21), torch.randint(-1, 5, (1, 1, 21, 21, 21))
    batch = Batch(image=image, target=Target(label=label), valid=None, case_id=("a",), n=(0,))
    angles = tuple(90.0 * turns if k == axis else 0.0 for k in range(3))
    for patch in ((21, 21, 21), (15, 13, 17)):
        placed = place(batch, [SpatialDraw(flips=STILL3, angles=angles)], patch)
        plane = ((axis + 1) % 3 + 2, (axis + 2) % 3 + 2)
        assert torch.equal(placed.target.label, centre_crop(label.rot90(-turns, plane), patch))
        expected = centre_crop(image.rot90(-turns, plane), patch)
        torch.testing.assert_close(placed.image, expected, atol=1e-4, rtol=0)
        assert placed.valid is None


@pytest.mark.parametrize("turns", [1, 2, -1])
def test_quarter_turns_equal_rot90_in_2d_and_within_slices(turns: int):
    image, label = torch.randn(1, 2, 31, 31), torch.randint(0, 5, (1, 1, 31, 31))
    batch = Batch(image=image, target=Target(label=label), valid=None, case_id=("a",), n=(0,))
    placed = place(batch, [SpatialDraw(flips=(False, False), angles=(90.0 * turns,))], (31, 31))
    assert torch.equal(placed.target.label, label.rot90(-turns, (2, 3)))
    torch.testing.assert_close(placed.image, image.rot90(-turns, (2, 3)), atol=1e-4, rtol=0)
    volume = Batch(
        image=image[:, :, :, None].repeat(1, 1, 1, 5, 1) * torch.arange(1, 6)[:, None],
        target=Target(label=label[:, :, :, None].repeat(1, 1, 1, 5, 1)),
        valid=None,
        case_id=("a",),
        n=(0,),
    )
    turned = place(volume, [SpatialDraw(flips=STILL3, angles=(90.0 * turns,))], (31, 5, 31))
    expected = placed.image[:, :, :, None] * torch.arange(1, 6)[:, None]
    torch.testing.assert_close(turned.image, expected, atol=1e-3, rtol=0)
    assert torch.equal(turned.target.label[:, :, :, 2], placed.target.label)


def test_rotations_are_rotations_and_act_on_their_own_axis():
    for angles in ((33.0,), (10.0, -25.0, 30.0)):
        matrix = rotation_matrix(angles)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-12)
        assert np.linalg.det(matrix) == pytest.approx(1)
    for axis in range(3):
        matrix = rotation_matrix(tuple(40.0 if k == axis else 0.0 for k in range(3)))
        np.testing.assert_allclose(matrix[axis], np.eye(3)[axis], atol=1e-12)
        assert np.trace(matrix) == pytest.approx(1 + 2 * np.cos(np.radians(40)))


def test_scale_above_one_makes_objects_smaller():
    image = torch.zeros(1, 1, 41, 41)
    image[..., 11:30, 11:30] = 1
    label = image.long()
    batch = Batch(image=image, target=Target(label=label), valid=None, case_id=("a",), n=(0,))
    sizes = [
        place(batch, [SpatialDraw(flips=(False, False), scale=scale)], (41, 41)).target.label.sum().item()
        for scale in (0.7, 1.0, 1.4)
    ]
    assert sizes[0] > sizes[1] == 19 * 19 > sizes[2]
    assert sizes[2] == pytest.approx(19 * 19 / 1.4**2, rel=0.1)


@pytest.mark.parametrize("flips", list(itertools.product((False, True), repeat=3)))
def test_mirroring_is_exact(flips: tuple[bool, ...]):
    image, label = torch.randn(1, 2, 9, 12, 11), torch.randint(-1, 5, (1, 1, 9, 12, 11))
    valid = torch.rand(1, 1, 9, 12, 11) > 0.5
    batch = Batch(image=image, target=Target(label=label), valid=valid, case_id=("a",), n=(0,))
    placed = place(batch, [SpatialDraw(flips=flips)], (8, 9, 6))
    axes = [axis + 2 for axis, flip in enumerate(flips) if flip]
    for got, field in ((placed.image, image), (placed.target.label, label), (placed.valid, valid)):
        assert torch.equal(got, centre_crop(field, (8, 9, 6)).flip(axes))


def test_samples_of_a_batch_do_not_mix_and_the_input_is_not_edited():
    batch = coordinate_batch((20, 22, 24), count=4)
    image, label = batch.image.clone(), batch.target.label.clone()
    draws = [
        SpatialDraw(flips=(True, False, False)),
        SpatialDraw(flips=STILL3, angles=(5.0, 10.0, 15.0)),
        SpatialDraw(flips=STILL3),
        SpatialDraw(flips=(False, True, True), scale=1.2),
    ]
    together = place(batch, draws, (12, 14, 10))
    for k, draw in enumerate(draws):
        alone = place(coordinate_batch((20, 22, 24)), [draw], (12, 14, 10))
        assert torch.equal(together.image[k], alone.image[0])
        assert torch.equal(together.target.label[k], alone.target.label[0])
    assert torch.equal(batch.image, image)
    assert torch.equal(batch.target.label, label)


def test_outside_the_source_is_background_and_not_valid():
    batch = coordinate_batch((16, 16, 16))
    batch = Batch(batch.image + 1, batch.target, None, batch.case_id, batch.n)
    placed = place(batch, [SpatialDraw(flips=STILL3, scale=1.4)], (16, 16, 16))
    assert placed.valid is not None
    outside = ~placed.valid
    assert 0.4 < outside.float().mean() < 0.8  # 1 - 1.4^-3
    for field in (placed.target.label, placed.target.instances, placed.target.cells, placed.target.weight):
        assert (field[outside] == 0).all()
    assert (placed.image[outside.expand_as(placed.image)] == 0).all()
    assert (placed.image[placed.valid.expand_as(placed.image)] >= 1 - 1e-4).all()  # no blending into the zeros outside


def test_the_number_of_instances_stays():
    batch = coordinate_batch((24, 24))
    batch = replace(batch, target=replace(batch.target, num_instances=24 * 24))
    assert place(batch, [SpatialDraw(flips=(True, False), scale=1.1)], (16, 16)).target.num_instances == 24 * 24


def test_valid_moves_with_the_label():
    batch = coordinate_batch((24, 24, 24))
    label = batch.target.label
    valid = (label % 3) > 0
    batch = Batch(batch.image, batch.target, valid, batch.case_id, batch.n)
    placed = place(batch, [SpatialDraw(flips=STILL3, angles=(10.0, 20.0, -15.0))], (16, 16, 16))
    assert placed.valid is not None
    assert torch.equal(placed.valid, (placed.target.label % 3) > 0)  # 0 outside, where 0 % 3 = 0
    assert (placed.image[~placed.valid.expand_as(placed.image)] == 0).all()


@pytest.mark.parametrize("together", [False, True])
def test_no_mask_is_made_where_none_is_needed(together: bool):
    still, turned = SpatialDraw(flips=(True, False)), SpatialDraw(flips=(False, False), angles=(20.0,))
    wide = SpatialDraw(flips=(False, False), scale=1.4)
    batch = coordinate_batch((16, 16), count=3)
    assert place(batch, [still, turned, turned], (10, 10), together=together).valid is None
    placed = place(batch, [still, wide, turned], (14, 14), together=together)
    assert placed.valid is not None
    assert placed.valid[0].all()
    assert not placed.valid[1].all()


@pytest.mark.parametrize(
    ("source", "patch", "angles"), [*CASES, ((16, 17, 15), (14, 15, 15), None), ((6, 30, 31), (6, 28, 25), None)]
)
@pytest.mark.parametrize("masked", [False, True])
def test_all_at_once_equals_one_by_one(source, patch, angles, masked: bool):
    """The way of accelerators against the way of the CPU: labels to the voxel, images to rounding."""
    batch = coordinate_batch(source, count=4)
    if masked:
        batch = Batch(batch.image, batch.target, batch.target.label % 3 > 0, batch.case_id, batch.n)
    flips = list(itertools.product((False, True), repeat=len(patch)))
    draws = [
        SpatialDraw(flips=flips[1]),
        SpatialDraw(flips=flips[-1], angles=angles, scale=1.37),
        SpatialDraw(flips=flips[2], scale=0.83),
        SpatialDraw(flips=flips[0], angles=angles),
    ]
    one, all_ = (place(batch, draws, patch, together=together) for together in (False, True))
    torch.testing.assert_close(one.image, all_.image, atol=5e-4, rtol=0)
    assert (one.target.label == all_.target.label).float().mean() > 0.999
    assert (one.valid is None) == (all_.valid is None)
    assert one.valid is None or (one.valid == all_.valid).float().mean() > 0.999


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_label_keeps_its_type_and_large_ids(dtype: torch.dtype):
    largest = torch.iinfo(dtype).max
    label = torch.full((1, 1, 10, 10), largest, dtype=dtype)
    batch = Batch(torch.randn(1, 1, 10, 10), Target(label=label), None, ("a",), (0,))
    placed = place(batch, [SpatialDraw(flips=(False, False), angles=(30.0,))], (6, 6))
    assert placed.target.label.dtype == dtype
    assert (placed.target.label == largest).all()


@pytest.mark.parametrize(
    ("patch", "limit"),
    [((128, 128, 128), 30), ((40, 56, 40), 30), ((20, 256, 256), 180), ((512, 512), 180), ((320, 512), 15)],
)
def test_rotation_limit_is_nnunets(patch: tuple[int, ...], limit: float):
    assert rotation_limit(patch) == limit


@pytest.mark.parametrize(
    ("patch", "source"),
    [((128, 128, 128), (205, 205, 205)), ((512, 512), (602, 602)), ((20, 256, 256), (20, 301, 301))],
)
def test_source_size_is_nnunets_on_cubes_and_squares(patch: tuple[int, ...], source: tuple[int, ...]):
    assert Spatial().source_size(patch) == source


@pytest.mark.parametrize("patch", [(40, 56, 40), (64, 96), (16, 64, 96)])
def test_source_is_never_smaller_and_fits_a_turn_about_one_axis(patch: tuple[int, ...]):
    limit = rotation_limit(patch)
    enlarged = source_size(patch, limit=limit, scale=1.0)
    assert all(big >= small for big, small in zip(enlarged, patch, strict=True))
    if len(patch) == 3 and limit == 30:
        for axis in range(3):
            angles = tuple(30.0 if k == axis else 0.0 for k in range(3))
            reach = np.abs(rotation_matrix(angles)) @ np.array(patch)
            assert (np.array(enlarged) >= np.floor(reach)).all()


def test_no_enlargement_where_nothing_turns_or_scales():
    spatial = Spatial(rotation_probability=0.0, scale_probability=0.0)
    assert spatial.source_size((40, 56, 40)) == (40, 56, 40)
    assert Spatial(rotation_probability=0.0).source_size((34, 34)) == (40, 40)


def test_a_source_smaller_than_the_patch_is_refused():
    with pytest.raises(DataError, match="smaller than the plan's"):
        place(coordinate_batch((10, 10)), [SpatialDraw(flips=(False, False))], (12, 10))


def test_settings_are_checked():
    for wrong in (
        {"mirror_probability": 1.5},
        {"scale": (1.4, 0.7)},
        {"rotation_degrees": -5.0},
        {"source_scale": 0.0},
    ):
        with pytest.raises(UsageError):
            Spatial(**wrong)


def test_forbidding_an_axis_changes_nothing_else():
    for n in range(50):
        free = Spatial().draw(np.random.default_rng(n), patch_size=(8, 8, 8), flip_axes=(0, 1, 2))
        bound = Spatial().draw(np.random.default_rng(n), patch_size=(8, 8, 8), flip_axes=(1, 2))
        assert bound.flips == (False, *free.flips[1:])
        assert (bound.angles, bound.scale) == (free.angles, free.scale)

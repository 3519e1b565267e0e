import numpy as np
import pytest
import torch

from segkit.evaluation import native_prediction
from segkit.evaluation.native import Stream, native_labels, native_slabs
from segkit.ops.resample import resample_label, resample_logits

GRIDS = [
    # native shape, spacing, crop, voxels of the plan's grid
    ((30, 28), (0.5, 0.5), None, (15, 14)),
    ((31, 27), (1.0, 1.0), ((3, 28), (0, 25)), (40, 37)),
    ((24, 22, 20), (1.0, 1.0, 1.0), None, (24, 22, 20)),
    ((24, 22, 20), (1.0, 1.0, 1.0), ((2, 21), (1, 22), (4, 19)), (19, 21, 15)),
    ((40, 38, 12), (0.8, 0.8, 2.0), ((5, 39), (0, 37), (1, 12)), (27, 30, 22)),
    ((40, 38, 12), (0.7, 0.7, 5.0), ((5, 39), (0, 37), (1, 12)), (24, 26, 20)),
    ((40, 38, 12), (0.7, 0.7, 5.0), None, (28, 27, 12)),
]


def dice(a, b):
    return 2 * np.count_nonzero((a == b) & (b > 0)) / (np.count_nonzero(a > 0) + np.count_nonzero(b > 0))


def inside(label, crop):
    """The label with nothing outside the crop."""
    kept = np.zeros_like(label)
    box = tuple(slice(*edge) for edge in crop)
    kept[box] = label[box]
    return kept


@pytest.mark.parametrize(("shape", "spacing", "crop", "grid"), GRIDS)
@pytest.mark.parametrize("shift_axis", [None, 0, -1])
def test_an_oracle_comes_back_and_a_shift_is_seen(made, shape, spacing, crop, grid, shift_axis):
    way_back = made.geometry(shape, spacing=spacing, crop=crop)
    crop = way_back.crop
    label = inside(made.boxes(shape, seed=3), crop)
    cut = label[tuple(slice(*edge) for edge in crop)]
    # What `prepare` gives the network; the oracle's logits are that label.
    apart = 2 if max(spacing) / min(spacing) > 3 else None
    oracle = made.one_hot(resample_label(cut, grid, separate_axis=apart))
    straight = dice(native_prediction([oracle], way_back), label)
    if shift_axis is None:
        assert straight == 1.0 if grid == cut.shape else straight > 0.9
        return
    # One voxel off, in the plan's grid or in the crop, costs more than the resampling does.
    moved = torch.roll(oracle, 1, dims=shift_axis % len(shape) + 1)
    assert dice(native_prediction([moved], way_back), label) < straight - 0.02
    axis = shift_axis % len(shape)
    off = [edge if i != axis else (edge[0] - 1, edge[1] - 1) for i, edge in enumerate(crop)]
    if off[axis][0] >= 0:
        wrong = made.geometry(shape, spacing=spacing, crop=off)
        assert dice(native_prediction([oracle], wrong), label) < straight - 0.02


@pytest.mark.parametrize(("shape", "spacing", "crop", "grid"), GRIDS)
def test_the_centre_of_mass_stays(made, shape, spacing, crop, grid):
    """A ramp of logits changes sign in the middle of the crop on every grid."""
    way_back = made.geometry(shape, spacing=spacing, crop=crop)
    for axis in range(len(shape)):
        ramp = (
            torch.linspace(-1, 1, grid[axis]).reshape([-1 if i == axis else 1 for i in range(len(grid))]).expand(grid)
        )
        found = native_prediction([torch.stack([torch.full(grid, 1e-6), ramp])], way_back)
        start, stop = way_back.crop[axis]
        by_line = np.moveaxis(found, axis, 0)[start:stop].reshape(stop - start, -1).max(axis=1)
        assert abs(by_line.sum() - (stop - start) / 2) <= 0.5


def test_outside_the_crop_is_background(made):
    way_back = made.geometry((10, 8), crop=((2, 7), (1, 8)))
    found = native_prediction([made.one_hot(np.full((5, 7), 2))], way_back)
    expected = np.zeros((10, 8))
    expected[2:7, 1:8] = 2
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.int16


def test_equals_resampling_all_classes_at_once(made):
    logits = torch.randn((5, 9, 8, 7), generator=torch.Generator().manual_seed(0))
    way_back = made.geometry((14, 11, 13))
    full = torch.nn.functional.interpolate(logits[None], size=(14, 11, 13), mode="trilinear", align_corners=False)[0]
    np.testing.assert_array_equal(native_prediction([logits], way_back), full.argmax(0).numpy())


def test_members_on_different_grids_are_averaged_natively(made):
    way_back = made.geometry((6, 6))
    sure, unsure = torch.zeros(2, 3, 3), torch.zeros(2, 6, 6)
    sure[1], unsure[0] = 3.0, 1.0
    assert (native_prediction([sure, unsure], way_back) == 1).all()
    assert (native_prediction([sure, unsure, unsure, unsure, unsure], way_back) == 0).all()


def test_a_tie_is_background(made):
    assert (native_prediction([torch.zeros(3, 4, 4)], made.geometry((4, 4))) == 0).all()


@pytest.mark.parametrize("members", [[], [torch.zeros(2, 4, 4), torch.zeros(3, 4, 4)]])
def test_members_must_agree(made, members):
    with pytest.raises(ValueError, match="cannot be averaged"):
        native_prediction(members, made.geometry((4, 4)))


def stream_of(logits, sizes=(1, 3, 2)):
    """The logits in blocks of changing length, each in memory that is overwritten when the next one is asked for."""

    def blocks():
        at, turn = 0, 0
        while at < logits.shape[1]:
            block = logits[:, at : at + sizes[turn % len(sizes)]].clone()
            yield block
            at, turn = at + block.shape[1], turn + 1
            block.fill_(torch.nan)

    return Stream(blocks(), logits.shape[0], tuple(logits.shape[1:]))


def random_logits(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("average", ["logits", "probabilities"])
@pytest.mark.parametrize(("shape", "spacing", "crop", "grid"), GRIDS)
def test_blocks_of_planes_give_what_the_whole_gives(made, shape, spacing, crop, grid, average):
    way_back = made.geometry(shape, spacing=spacing, crop=crop)
    first = random_logits(4, *grid)
    other = random_logits(4, *(n + 1 for n in grid), seed=1)
    for members in ([first], [first, other], [first, other, first]):
        whole = native_labels(
            [Stream(iter([one]), 4, tuple(one.shape[1:])) for one in members], way_back, average=average
        )
        streamed = native_labels([stream_of(one) for one in members], way_back, average=average)
        np.testing.assert_array_equal(streamed, whole)
    if average == "logits":
        np.testing.assert_array_equal(native_prediction([first], way_back), native_labels([stream_of(first)], way_back))


@pytest.mark.parametrize(("shape", "spacing", "crop", "grid"), GRIDS)
def test_planes_are_resampled_as_the_whole_is(made, shape, spacing, crop, grid):
    """Against `resample_logits` of all axes at once, to rounding."""
    way_back = made.geometry(shape, spacing=spacing, crop=crop)
    size = tuple(stop - start for start, stop in way_back.crop)
    logits = random_logits(3, *grid)
    apart = 2 if max(spacing) / min(spacing) > 3 else None
    expected = resample_logits(logits, size, separate_axis=apart).softmax(0)
    found = torch.full_like(expected, torch.nan)

    def keep(begin, probabilities):
        found[:, begin : begin + probabilities.shape[1]] = probabilities

    labels = native_labels([stream_of(logits)], way_back, keep=keep)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    inside = tuple(slice(*edge) for edge in way_back.crop)
    np.testing.assert_array_equal(labels[inside], found.argmax(0).numpy())


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_axis_apart_may_be_any(made, axis):
    spacing = [0.7, 0.7, 0.7]
    spacing[axis] = 5.0
    way_back = made.geometry((12, 10, 9), spacing=spacing)
    grid = [17, 15, 13]
    logits = random_logits(3, *grid)
    expected = resample_logits(logits, (12, 10, 9), separate_axis=axis).argmax(0)
    assert (native_prediction([logits], way_back) == expected.numpy()).mean() > 0.999


def test_what_is_averaged_is_resampled(made):
    """By hand: logits (0, 4) beside (0, -2), halfway between: their mean says class 1, that of probabilities too, but
    with another number; two members that disagree: the surer one wins by logits, the majority by probabilities."""
    way_back = made.geometry((3, 2))
    logits = torch.tensor([[[0.0, 0.0], [0.0, 0.0]], [[4.0, 4.0], [-2.0, -2.0]]])
    kept = {}

    def keep_as(name):
        return lambda begin, values: kept.setdefault(name, []).append(values.clone())

    native_labels([stream_of(logits)], way_back, keep=keep_as("logits"))
    native_labels([stream_of(logits)], way_back, average="probabilities", keep=keep_as("probabilities"))
    by_logits, by_probabilities = (torch.cat(kept[name], dim=1)[1, 1, 0] for name in ("logits", "probabilities"))
    sure, unsure = (1 / (1 + np.exp(-x)) for x in (4.0, -2.0))
    assert by_logits == pytest.approx(1 / (1 + np.exp(-1.0)), abs=1e-6)
    assert by_probabilities == pytest.approx((sure + unsure) / 2, abs=1e-6)

    sure_of_one, for_zero = torch.zeros(2, 3, 2), torch.zeros(2, 3, 2)
    sure_of_one[1], for_zero[0] = 9.0, 2.0
    members = [sure_of_one, for_zero, for_zero]
    assert (native_labels([stream_of(one) for one in members], way_back) == 1).all()
    assert (native_labels([stream_of(one) for one in members], way_back, average="probabilities") == 0).all()


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_probabilities_are_kept_plane_by_plane_and_sum_to_one(made, average):
    way_back = made.geometry((9, 8, 7), crop=((1, 9), (0, 8), (2, 7)))
    planes = []

    def keep(begin, values):
        assert begin == sum(part.shape[1] for part in planes)
        planes.append(values.clone())

    members = [random_logits(4, 5, 6, 7), random_logits(4, 8, 8, 5, seed=1)]
    native_labels([stream_of(one) for one in members], way_back, average=average, keep=keep)
    found = torch.cat(planes, dim=1)
    assert found.shape == (4, 8, 8, 5)
    torch.testing.assert_close(found.sum(0), torch.ones(8, 8, 5), rtol=0, atol=1e-6)
    assert found.min() >= 0


def test_the_largest_of_the_slabs_is_what_is_predicted(made):
    """Two members on two grids, thick slices among them; then one member on the image's own."""
    way_back = made.geometry((12, 14, 9), spacing=(1.0, 1.0, 4.0), crop=((1, 11), (0, 14), (2, 9)))
    both = [torch.randn(3, 10, 14, 7), torch.randn(3, 12, 9, 7)]
    crop = tuple(slice(start, stop) for start, stop in way_back.crop)
    for members in (both, both[:1]):
        parts = [(part, logits.clone()) for part, logits in native_slabs(members, way_back)]
        assert [part.start for part, _ in parts] == [0, *(part.stop for part, _ in parts[:-1])]
        found = torch.cat([logits for _, logits in parts], dim=1)
        np.testing.assert_array_equal(found.argmax(0).numpy(), native_prediction(members, way_back)[crop])

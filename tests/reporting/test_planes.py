import numpy as np
import pytest

from segkit.reporting.planes import best_slice, counts_by_slice, fullest_slice, planes_of, round_length, window


def _point(shape, at):
    label = np.zeros(shape, dtype=np.int64)
    label[at] = 1
    return label


@pytest.mark.parametrize(
    ("name", "toward", "side"),
    [
        ("axial", (1, 0, 0), "left"),
        ("axial", (0, 1, 0), "top"),
        ("coronal", (1, 0, 0), "left"),
        ("coronal", (0, 0, 1), "top"),
        ("sagittal", (0, 1, 0), "left"),
        ("sagittal", (0, 0, 1), "top"),
    ],
)
def test_what_lies_toward_a_direction_is_drawn_on_the_side_with_its_letter(name, toward, side):
    """A voxel right, anterior or superior of the middle, in an array that runs to RAS+."""
    shape = (9, 11, 7)
    at = tuple(size // 2 + 2 * step for size, step in zip(shape, toward, strict=True))
    label = _point(shape, at)
    planes = planes_of(label[None].astype(np.float32), label, None, spacing=(1.0, 1.0, 1.0))
    plane = next(plane for plane in planes if plane.caption.startswith(name))
    (row,), (column,) = np.nonzero(plane.reference)
    height, width = plane.reference.shape
    offset = {"left": (width - 1) / 2 - column, "top": (height - 1) / 2 - row}[side]
    assert offset == 2
    letter = "RAS"[toward.index(1)]
    assert getattr(plane.sides, side) == letter


def test_image_and_masks_are_cut_and_turned_alike():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, (5, 6, 7))
    for plane in planes_of(label[None].astype(np.float32), label, label, spacing=(1.0, 2.0, 3.0)):
        assert np.array_equal(plane.image[..., 0], plane.reference)
        assert np.array_equal(plane.reference, plane.prediction)


def test_pixels_have_the_size_of_the_spacing():
    image = np.zeros((1, 4, 5, 6), dtype=np.float32)
    axial, coronal, sagittal = planes_of(image, None, None, spacing=(1.0, 2.0, 5.0))
    assert axial.extent == (4.0, 10.0)
    assert coronal.extent == (4.0, 30.0)
    assert sagittal.extent == (10.0, 30.0)


def test_a_picture_is_neither_turned_nor_lettered():
    picture = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    (plane,) = planes_of(picture, None, None, spacing=(1.0, 1.0), unit="pixel")
    assert plane.sides is None
    assert np.array_equal(plane.image, np.moveaxis(picture, 0, -1))


def test_a_stack_in_pixels_keeps_its_order():
    stack = np.arange(2 * 3 * 4, dtype=np.float32).reshape(1, 2, 3, 4)
    planes = planes_of(stack, None, None, spacing=(1.0, 1.0, 1.0), unit="pixel")
    assert all(plane.sides is None for plane in planes)
    assert np.array_equal(planes[2].image[..., 0], stack[0, 1])


def test_the_prediction_chooses_the_slice_where_the_reference_is_empty():
    empty, guess = np.zeros((5, 5, 5), dtype=np.int64), _point((5, 5, 5), (1, 2, 4))
    planes = planes_of(guess[None].astype(np.float32), empty, guess, spacing=(1.0,) * 3)
    assert all(plane.prediction.sum() == 1 for plane in planes)


def test_a_small_class_counts_as_much_as_a_large_one():
    label = np.zeros((10, 20, 20), dtype=np.int64)
    label[2, :, :] = 1  # 400 voxels of class 1 in slice 2 and as many in slice 6,
    label[6, :, :] = 1
    label[6, 0, :3] = 2  # ... where all of class 2 is too
    assert best_slice(label, 0, size=10) == 6


def test_middle_where_there_is_nothing_to_show():
    assert best_slice(np.full((8, 3, 3), -1), 0, size=8) == 4
    assert best_slice(None, 0, size=9) == 4


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_voxels_of_each_class_in_each_slice(axis):
    label = np.random.default_rng(axis).integers(-1, 4, (5, 6, 7))
    counts = counts_by_slice(label, axis)
    others = tuple(i for i in range(3) if i != axis)
    for index in (1, 2, 3):
        assert counts[:, index].tolist() == np.count_nonzero(label == index, axis=others).tolist()
    assert counts[:, 0].tolist() == np.count_nonzero(label <= 0, axis=others).tolist()


def test_the_fullest_slice_counts_classes_by_their_share():
    assert fullest_slice(np.array([[0, 100, 0], [10, 90, 1], [100, 0, 0]])) == 1
    assert fullest_slice(np.array([[100, 0, 0]] * 5)) == 2


def test_window_of_a_large_image_is_that_of_all_its_voxels(monkeypatch):
    image = np.random.default_rng(0).gamma(2.0, 50.0, (1, 60, 60, 60))
    exact = window(image)
    monkeypatch.setattr("segkit.reporting.planes._MOST_VALUES", 30_000)
    (low,), (high,) = window(image)
    assert low != exact[0][0]
    assert low == pytest.approx(exact[0][0], abs=1.0)
    assert high == pytest.approx(exact[1][0], rel=0.05)


def test_window_leaves_out_extremes_and_empty_space():
    rng = np.random.default_rng(0)
    inside = rng.normal(500, 50, 10_000)
    image = np.concatenate([np.zeros(90_000), inside, [1.7e6]])[None].reshape(1, -1, 1)
    (low,), (high,) = window(image)
    assert 300 < low < 450
    assert 550 < high < 700


@pytest.mark.parametrize("value", [0.0, -3.0, np.nan])
def test_window_of_a_constant_image_is_not_empty(value):
    low, high = window(np.full((2, 4, 4), value, dtype=np.float32))
    assert np.isfinite(low).all()
    assert (high > low).all()


def test_colours_of_a_photograph_stay():
    low, high = window(np.full((3, 4, 4), 17, dtype=np.uint8))
    assert np.array_equal(low, np.zeros(3))
    assert np.array_equal(high, np.full(3, 255.0))


@pytest.mark.parametrize(("longest", "expected"), [(1.0, 1.0), (1.9, 1.0), (2.0, 2.0), (49.0, 20.0), (0.07, 0.05)])
def test_scale_bars_have_round_lengths(longest, expected):
    assert round_length(longest) == pytest.approx(expected)

"""Pixels by arithmetic: sizes, means, outlines and colours by hand, the PNG by another library."""

import io

import numpy as np
import pytest
from PIL import Image

from segkit.reporting.planes import Plane
from segkit.reporting.thumbnail import COLOURS, colour_of, nearest, outline, png_of, resized, thumbnail

ZERO, ONE = np.zeros(1), np.ones(1)


def plane(image, prediction=None, pixel=(1.0, 1.0)):
    return Plane(image.astype(np.float32), None, prediction, pixel)


def rgb(colour):
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def test_a_smaller_picture_holds_the_means():
    image = np.arange(24.0).reshape(4, 6, 1)
    expected = image.reshape(2, 2, 3, 2, 1).mean(axis=(1, 3))
    np.testing.assert_allclose(resized(image, (2, 3)), expected)


def test_a_larger_picture_repeats_pixels_and_the_same_size_is_the_same():
    image = np.arange(6.0).reshape(2, 3, 1)
    np.testing.assert_array_equal(resized(image, (4, 6)), image.repeat(2, axis=0).repeat(2, axis=1))
    np.testing.assert_array_equal(resized(image, (2, 3)), image)


@pytest.mark.parametrize("shape", [(7, 5), (3, 9), (2, 2), (10, 11)])
def test_a_constant_stays_itself_at_any_size(shape):
    np.testing.assert_allclose(resized(np.full((5, 7, 3), 4.5), shape), np.full((*shape, 3), 4.5))


def test_labels_are_taken_at_the_centre():
    label = np.array([[1, 2, 3, 4]])
    np.testing.assert_array_equal(nearest(label, (1, 2)), [[2, 4]])
    np.testing.assert_array_equal(nearest(label, (2, 8)), np.repeat(np.repeat(label, 2, axis=1), 2, axis=0))


def test_the_outline_is_what_has_another_neighbour_at_a_side():
    label = np.zeros((6, 6), dtype=int)
    label[1:5, 1:5] = 1
    label[2:4, 2:4] = 2
    expected = label > 0
    np.testing.assert_array_equal(outline(label), expected)  # every voxel here touches another class
    label[1:5, 1:5] = 1
    expected[2:4, 2:4] = False
    np.testing.assert_array_equal(outline(label), expected)
    np.testing.assert_array_equal(outline(np.ones((2, 2), dtype=int)), np.ones((2, 2), dtype=bool))


def test_millimetres_are_as_long_in_both_directions():
    pixels = thumbnail(plane(np.zeros((10, 40, 1)), pixel=(3.0, 1.0)), (ZERO, ONE), side=80)
    assert pixels.shape == (60, 80, 3)


def test_each_class_is_tinted_and_outlined_in_its_colour():
    label = np.zeros((9, 9), dtype=np.int16)
    label[1:6, 1:6], label[7, 7] = 1, 2
    pixels = thumbnail(plane(np.full((9, 9, 1), 0.5), label), (ZERO, ONE), side=9)
    assert pixels[0, 0].tolist() == [128, 128, 128]
    assert pixels[1, 1].tolist() == rgb(COLOURS[0])
    assert pixels[7, 7].tolist() == rgb(COLOURS[1])
    inner = [round(0.7 * 127.5 + 0.3 * value) for value in rgb(COLOURS[0])]
    np.testing.assert_allclose(pixels[3, 3], inner, atol=1)
    assert colour_of(len(COLOURS) + 1) == colour_of(1)


def test_intensities_run_from_black_to_white_and_what_is_no_number_is_black():
    image = np.array([[-1.0, 0.0, 0.5, 1.0, 9.0, np.nan]])[..., None]
    pixels = thumbnail(plane(image), (ZERO, ONE), side=6)
    assert pixels[0, :, 0].tolist() == [0, 0, 128, 255, 255, 0]


def test_the_png_is_read_back_by_another_library():
    pixels = np.random.default_rng(0).integers(0, 256, (13, 7, 3)).astype(np.uint8)
    with Image.open(io.BytesIO(png_of(pixels))) as picture:
        assert picture.format == "PNG"
        np.testing.assert_array_equal(np.asarray(picture), pixels)

import numpy as np
import pytest
import tifffile
from PIL import Image

from segkit.data.readers import read, write
from segkit.errors import DataError

RNG = np.random.default_rng(5)


def _save(path, array, **options):
    tifffile.imwrite(path, array, **options)
    return path


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32", "float64"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_types_and_byte_orders(tmp_path, dtype, byteorder):
    array = RNG.integers(0, 100, (5, 7)).astype(dtype)
    volume = read(_save(tmp_path / "a.tif", array, byteorder=byteorder, photometric="minisblack"))
    np.testing.assert_array_equal(volume.array[0], array)
    assert volume.dtype == np.dtype(dtype)
    assert volume.array.dtype.isnative
    assert volume.unit == "pixel"


def test_samples_are_channels_and_transparency_is_dropped(tmp_path):
    rgb = RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    np.testing.assert_array_equal(
        read(_save(tmp_path / "a.tif", rgb, photometric="rgb")).array, np.moveaxis(rgb, -1, 0)
    )
    rgba = np.concatenate([rgb, rgb[..., :1]], axis=2)
    path = _save(tmp_path / "b.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read(path).array, np.moveaxis(rgb, -1, 0))
    path = _save(tmp_path / "c.tif", np.moveaxis(rgb, -1, 0), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read(path).array, np.moveaxis(rgb, -1, 0))


def test_pages_are_the_first_spatial_axis(tmp_path):
    stack = RNG.integers(0, 256, (4, 5, 7)).astype(np.uint8)
    volume = read(_save(tmp_path / "a.tif", stack, photometric="minisblack"))
    np.testing.assert_array_equal(volume.array[0], stack)
    assert volume.affine.shape == (4, 4)


def test_imagej_calibration_and_channels_come_back(tmp_path):
    stack = RNG.integers(0, 256, (4, 2, 5, 7)).astype(np.uint8)
    path = _save(
        tmp_path / "a.tif",
        stack,
        imagej=True,
        resolution=(4.0, 2.0),
        metadata={"axes": "ZCYX", "spacing": 3.0, "unit": "um"},
    )
    volume = read(path)
    np.testing.assert_array_equal(volume.array, stack.swapaxes(0, 1))
    assert volume.unit == "mm"
    np.testing.assert_allclose(volume.spacing, (3e-3, 0.5e-3, 0.25e-3))
    ids = RNG.integers(0, 3, (4, 5, 7)).astype(np.int32)
    mask = read(write(tmp_path / "m.tif", ids, like=volume), role="label")
    np.testing.assert_array_equal(mask.array[0], ids)
    np.testing.assert_allclose(mask.spacing, volume.spacing)


def test_resolution_of_a_plain_tiff_comes_back(tmp_path):
    path = _save(tmp_path / "a.tif", np.zeros((5, 7), np.uint8), resolution=(300, 200), resolutionunit="CENTIMETER")
    write(tmp_path / "m.tif", np.ones((5, 7), dtype=np.int32), like=read(path))
    with tifffile.TiffFile(tmp_path / "m.tif") as mask:
        tags = mask.pages.first.tags
        assert (tags["XResolution"].value, tags["YResolution"].value) == ((300, 1), (200, 1))
        assert tags["ResolutionUnit"].value == 3


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_usual_compressions_are_read(tmp_path, compression, mode):
    pixels = RNG.integers(0, 256, (5, 7) if mode == "L" else (5, 7, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.tif", compression=compression)
    expected = pixels[None] if mode == "L" else np.moveaxis(pixels, -1, 0)
    np.testing.assert_array_equal(read(tmp_path / "a.tif").array, expected)


def test_palette_is_colour_in_an_image_and_class_in_a_label(tmp_path):
    indices = RNG.integers(0, 3, (5, 7)).astype(np.uint8)
    picture = Image.fromarray(indices)
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    picture.save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read(tmp_path / "a.tif", role="label").array[0], indices)
    colours = np.array([(10, 20, 30), (40, 50, 60), (70, 80, 90)])
    np.testing.assert_array_equal(read(tmp_path / "a.tif").array, np.moveaxis(colours[indices], -1, 0))


def test_movies_and_sets_of_pictures_are_refused(tmp_path):
    path = _save(tmp_path / "a.tif", np.zeros((3, 5, 7), np.uint8), imagej=True, metadata={"axes": "TYX"})
    with pytest.raises(DataError, match="movie"):
        read(path)
    with tifffile.TiffWriter(tmp_path / "b.tif") as file:
        file.write(np.zeros((5, 7), np.uint8))
        file.write(np.zeros((6, 9), np.uint8))
    with pytest.raises(DataError, match="several images"):
        read(tmp_path / "b.tif")


def test_labels_of_several_channels_are_refused(tmp_path):
    rgb = RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    path = _save(tmp_path / "a.tif", rgb, photometric="rgb")
    with pytest.raises(DataError, match="several channels"):
        read(path, role="label")

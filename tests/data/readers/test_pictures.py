import struct
import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from segkit.data.readers import read, write
from segkit.errors import DataError

RNG = np.random.default_rng(3)
GREY = RNG.integers(0, 256, (6, 9)).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (6, 9, 3)).astype(np.uint8)


def _turned(pixels, orientation):
    """What a viewer shows, by the table of the EXIF standard."""
    table = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: np.swapaxes(p, 0, 1),
        6: lambda p: np.rot90(p, -1),
        7: lambda p: np.rot90(np.swapaxes(p, 0, 1), 2),
        8: lambda p: np.rot90(p, 1),
    }
    return table[orientation](pixels)


def _exif(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_and_the_mask_is_upright(tmp_path, orientation):
    Image.fromarray(COLOUR).save(tmp_path / "a.png", exif=_exif(orientation))
    volume = read(tmp_path / "a.png")
    expected = _turned(COLOUR, orientation)
    np.testing.assert_array_equal(volume.array, np.moveaxis(expected, -1, 0))
    ids = np.arange(54, dtype=np.int32).reshape(volume.spatial_shape)
    write(tmp_path / "m.png", ids, like=volume)
    np.testing.assert_array_equal(read(tmp_path / "m.png", role="label").array[0], ids)
    with Image.open(tmp_path / "m.png") as picture:
        assert picture.getexif().get(0x0112) is None


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_exif_of_16_bit_colour(tmp_path, orientation):
    deep = RNG.integers(0, 65536, (6, 9, 3)).astype(np.uint16)
    sitk.WriteImage(sitk.GetImageFromArray(deep, isVector=True), str(tmp_path / "plain.png"))
    # Pillow cannot write 16-bit colour: an eXIf chunk is put in by hand, before the pixels.
    content = (tmp_path / "plain.png").read_bytes()
    body = b"eXIf" + _exif(orientation).tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    (tmp_path / "a.png").write_bytes(content[:33] + chunk + content[33:])
    volume = read(tmp_path / "a.png")
    np.testing.assert_array_equal(volume.array, np.moveaxis(_turned(deep, orientation), -1, 0))
    assert volume.dtype == np.uint16


def test_sixteen_bit_grey_keeps_its_values(tmp_path):
    deep = np.array([[0, 255, 256], [40000, 65535, 7]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    volume = read(tmp_path / "a.png")
    np.testing.assert_array_equal(volume.array[0], deep)
    assert volume.dtype == np.uint16


def test_palette_is_colour_in_an_image_and_class_in_a_label(tmp_path):
    indices = (GREY % 3).astype(np.uint8)
    colours = [(10, 20, 30), (40, 50, 60), (70, 80, 90)]
    picture = Image.fromarray(indices)
    picture.putpalette([value for colour in colours for value in colour])
    assert picture.mode == "P"
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png", role="label").array[0], indices)
    np.testing.assert_array_equal(read(tmp_path / "a.png").array, np.moveaxis(np.array(colours)[indices], -1, 0))


def test_transparency_is_dropped(tmp_path):
    alpha = RNG.integers(0, 256, (6, 9, 1)).astype(np.uint8)
    Image.fromarray(np.concatenate([COLOUR, alpha], axis=2)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png").array, np.moveaxis(COLOUR, -1, 0))
    Image.fromarray(np.concatenate([GREY[..., None], alpha], axis=2)).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read(tmp_path / "b.png").array[0], GREY)


def test_one_bit_pictures(tmp_path):
    mask = GREY > 128
    Image.fromarray(mask).save(tmp_path / "a.png")
    volume = read(tmp_path / "a.png", role="label")
    np.testing.assert_array_equal(volume.array[0], mask)
    write(tmp_path / "m.png", mask.astype(np.int32), like=volume)
    with Image.open(tmp_path / "m.png") as picture:
        assert picture.mode == "1"


def test_grey_saved_as_colour_is_a_label_and_colours_are_not(tmp_path):
    Image.fromarray(np.repeat(GREY[..., None], 3, axis=2)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png", role="label").array, GREY[None])
    Image.fromarray(COLOUR).save(tmp_path / "b.png")
    with pytest.raises(DataError, match="coded by colour") as caught:
        read(tmp_path / "b.png", role="label")
    assert str(tuple(sorted(map(tuple, COLOUR.reshape(-1, 3).tolist()))[0])) in caught.value.why


def test_jpeg_masks_are_refused_and_jpeg_images_read(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "a.jpg")
    assert read(tmp_path / "a.jpg").array.shape == (3, 6, 9)
    with pytest.raises(DataError, match="JPEG cannot hold a mask"):
        read(tmp_path / "a.jpg", role="label")


def test_cmyk_becomes_rgb(tmp_path):
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "a.jpg")
    assert read(tmp_path / "a.jpg").array.shape == (3, 6, 9)


def test_one_flipped_byte_in_a_png_is_found(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(COLOUR).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        read(path)


def test_a_size_that_no_memory_holds_is_refused_by_the_header(tmp_path):
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    parts = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data, b"IEND")]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(DataError, match="more voxels"):
        read(tmp_path / "a.png")
    assert limit == Image.MAX_IMAGE_PIXELS


def test_movies_are_refused(tmp_path):
    frames = [Image.fromarray(RNG.integers(0, 256, (6, 9)).astype(np.uint8)) for _ in range(3)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="movie"):
        read(tmp_path / "a.png")


def test_bmp_says_that_it_cannot_hold_large_ids(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.bmp")
    ids = np.full((6, 9), 300, dtype=np.int32)
    with pytest.raises(DataError, match="cannot hold"):
        write(tmp_path / "m.bmp", ids, like=read(tmp_path / "a.bmp"))

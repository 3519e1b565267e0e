"""What goes into a file comes back: values, geometry, size, data type and file type, for every ending."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image
from scipy.spatial.transform import Rotation

from segkit.data.geometry import canonical, to_file_order
from segkit.data.readers import ENDINGS, ending_of, read, write
from segkit.errors import DataError

RNG = np.random.default_rng(7)
OBLIQUE = Rotation.from_euler("xyz", [100, 25, -170], degrees=True).as_matrix() @ np.diag([0.7, 1.3, 2.1])
SHAPE = (5, 7, 4)


def _nifti(path: Path) -> np.ndarray:
    voxels = RNG.integers(-50, 1000, SHAPE).astype(np.int16)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = OBLIQUE, (-90, 126, -72)
    kind = nib.Nifti1Pair if path.suffix == ".hdr" else nib.Nifti1Image
    nib.save(kind(voxels, affine), path)
    return voxels[None]


def _simpleitk(path: Path) -> np.ndarray:
    voxels = RNG.integers(-50, 1000, SHAPE).astype(np.int16)
    image = sitk.GetImageFromArray(voxels.T)
    image.SetSpacing((0.7, 1.3, 2.1))
    image.SetOrigin((10, -20, 30))
    image.SetDirection(Rotation.from_euler("xyz", [100, 25, -170], degrees=True).as_matrix().ravel().tolist())
    sitk.WriteImage(image, str(path))
    return voxels[None]


def _picture(path: Path) -> np.ndarray:
    pixels = RNG.integers(0, 256, (6, 9)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels[None]


def _jpeg(path: Path) -> np.ndarray:
    Image.fromarray(RNG.integers(0, 256, (16, 24)).astype(np.uint8)).save(path, quality=95)
    with Image.open(path) as picture:
        return np.asarray(picture)[None]


def _tiff(path: Path) -> np.ndarray:
    voxels = RNG.integers(0, 60000, SHAPE).astype(np.uint16)
    tifffile.imwrite(path, voxels, photometric="minisblack")
    return voxels[None]


MAKE = {
    ".nii": _nifti,
    ".nii.gz": _nifti,
    ".hdr": _nifti,
    ".nrrd": _simpleitk,
    ".mha": _simpleitk,
    ".mhd": _simpleitk,
    ".png": _picture,
    ".bmp": _picture,
    ".jpg": _jpeg,
    ".jpeg": _jpeg,
    ".tif": _tiff,
    ".tiff": _tiff,
}


def test_every_ending_is_tested():
    assert set(MAKE) == set(ENDINGS)


@pytest.mark.parametrize("ending", sorted(MAKE))
def test_an_image_is_read_as_it_was_written(ending, tmp_path):
    path = tmp_path / f"a.b{ending}"
    expected = MAKE[ending](path)
    volume = read(path)
    np.testing.assert_array_equal(volume.array, expected)
    assert volume.dtype == expected.dtype
    assert volume.path == path
    np.testing.assert_allclose(np.linalg.norm(volume.affine[:-1, :-1], axis=0), volume.spacing, rtol=1e-6)


@pytest.mark.parametrize("ending", sorted(MAKE))
def test_a_mask_comes_back_in_the_geometry_of_its_image(ending, tmp_path):
    path = tmp_path / f"image{ending}"
    MAKE[ending](path)
    image = read(path)
    ids = RNG.integers(0, 3, image.spatial_shape).astype(np.int32)
    written = write(tmp_path / "out" / f"mask{ending}", ids, like=image)
    assert ending_of(written) == (".png" if ending in (".jpg", ".jpeg") else ending)
    mask = read(written, role="label")
    np.testing.assert_array_equal(mask.array[0], ids)
    assert mask.dtype == image.dtype
    assert mask.spacing == image.spacing
    assert mask.unit == image.unit
    np.testing.assert_array_equal(mask.affine, image.affine)
    halves = {".hdr": {"mask.hdr", "mask.img"}, ".mhd": {"mask.mhd", "mask.zraw"}}.get(ending, {written.name})
    assert {part.name for part in written.parent.iterdir()} == halves  # nothing temporary is left


@pytest.mark.parametrize("ending", sorted(MAKE))
def test_a_mask_made_in_ras_order_comes_back_through_the_file(ending, tmp_path):
    path = tmp_path / f"image{ending}"
    MAKE[ending](path)
    image = read(path)
    array, geometry = canonical(image)
    ids = (array[0] > np.median(array)).astype(np.int32)
    written = write(tmp_path / f"mask{ending}", to_file_order(ids, geometry), like=image)
    again, _ = canonical(read(written, role="label"))
    np.testing.assert_array_equal(again[0], ids)


@pytest.mark.parametrize("ending", sorted(set(MAKE) - {".bmp"}))
def test_ids_that_the_type_of_the_image_cannot_hold_widen_it(ending, tmp_path):
    path = tmp_path / f"image{ending}"
    MAKE[ending](path)
    image = read(path)
    ids = np.zeros(image.spatial_shape, dtype=np.int32)
    ids.flat[0] = 40_000  # beyond uint8 and int16, within uint16
    mask = read(write(tmp_path / f"mask{ending}", ids, like=image), role="label")
    np.testing.assert_array_equal(mask.array[0], ids)
    assert mask.dtype == np.uint16


@pytest.mark.parametrize("ending", sorted(MAKE))
def test_half_a_file_is_a_data_error_that_names_it(ending, tmp_path):
    path = tmp_path / f"image{ending}"
    MAKE[ending](path)
    voxels = next((p for p in tmp_path.iterdir() if p.suffix in (".img", ".raw", ".zraw")), path)
    content = voxels.read_bytes()
    voxels.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError) as caught:
        read(path, case="case_007")
    assert "case_007" in caught.value.where
    assert str(path) in caught.value.where
    assert caught.value.why
    assert caught.value.mend


@pytest.mark.parametrize("ending", sorted(MAKE))
def test_text_under_the_name_of_an_image_is_a_data_error(ending, tmp_path):
    path = tmp_path / f"image{ending}"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n" * 20)
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(path) in caught.value.where
    assert caught.value.mend

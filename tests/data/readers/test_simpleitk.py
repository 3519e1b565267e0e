import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from segkit.data.readers import read, write
from segkit.errors import DataError


def _image(shape=(5, 4, 3), components=1):
    rng = np.random.default_rng(0)
    array = rng.integers(0, 100, (*shape[::-1], components)).astype(np.int16)
    image = sitk.GetImageFromArray(array if components > 1 else array[..., 0], isVector=components > 1)
    image.SetSpacing((0.5, 1.5, 2.5)[: len(shape)])
    image.SetOrigin((10, 20, 30)[: len(shape)])
    return image, array


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".mhd"])
def test_affine_is_that_of_the_same_image_as_nifti(tmp_path, ending):
    image, _ = _image()
    image.SetDirection((0, 0.6, 0.8, 1, 0, 0, 0, 0.8, -0.6))
    sitk.WriteImage(image, str(tmp_path / f"a{ending}"))
    sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))
    volume, nifti = read(tmp_path / f"a{ending}"), read(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(volume.affine, nifti.affine, atol=1e-5)
    np.testing.assert_allclose(volume.affine, nib.load(tmp_path / "a.nii.gz").affine, atol=1e-5)
    np.testing.assert_array_equal(volume.array, nifti.array)


def test_components_are_channels(tmp_path):
    image, array = _image(components=2)
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    volume = read(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(volume.array, np.transpose(array, (3, 2, 1, 0)))
    write(tmp_path / "m.nrrd", np.ones((5, 4, 3), dtype=np.int32), like=volume)
    assert sitk.ReadImage(str(tmp_path / "m.nrrd")).GetNumberOfComponentsPerPixel() == 1


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1)])
def test_a_single_slice_is_2d_and_its_mask_has_its_shape(tmp_path, shape):
    image, array = _image(shape)
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    volume = read(tmp_path / "a.mha")
    np.testing.assert_array_equal(volume.array[0], array[..., 0].T.reshape(5, 4))
    assert volume.spacing == (0.5, 1.5)
    write(tmp_path / "m.mha", np.ones((5, 4), dtype=np.int32), like=volume)
    mask = sitk.ReadImage(str(tmp_path / "m.mha"))
    assert mask.GetSize() == shape
    assert mask.GetOrigin() == image.GetOrigin()


def test_fourth_axis_is_channels(tmp_path):
    array = np.random.default_rng(0).integers(0, 100, (2, 3, 4, 5)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=False), str(tmp_path / "a.nrrd"))
    volume = read(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(volume.array, array.transpose(0, 3, 2, 1))
    write(tmp_path / "m.nrrd", np.ones((5, 4, 3), dtype=np.int32), like=volume)
    assert sitk.ReadImage(str(tmp_path / "m.nrrd")).GetSize() == (5, 4, 3)


def test_a_size_that_no_memory_holds_is_refused_by_the_header(tmp_path):
    path = tmp_path / "a.mhd"
    path.write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 32000 32000 32000\nElementType = MET_SHORT\n"
        "ElementSpacing = 1 1 1\nElementDataFile = a.raw\n"
    )
    (tmp_path / "a.raw").write_bytes(b"x")
    with pytest.raises(DataError, match="more voxels"):
        read(path)

"""Numbers beside an image: where each lands, in which geometry."""

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from segkit.data.readers import read, write_channels

OBLIQUE = np.array([[0.0, -0.8, 0.1, 3.0], [1.1, 0.0, 0.0, -4.0], [0.0, 0.1, 2.0, 5.0], [0.0, 0.0, 0.0, 1.0]])


def numbers(shape, count):
    return np.random.default_rng(0).random((count, *shape)).astype(np.float32)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.hdr"])
def test_the_geometry_of_a_nifti(tmp_path, name):
    nibabel.save(nibabel.Nifti1Image(np.zeros((5, 4, 3), np.int16), OBLIQUE), tmp_path / name.replace(".hdr", ".img"))
    like = read(tmp_path / name)
    values = numbers((5, 4, 3), 6)
    written = nibabel.load(write_channels(tmp_path / "out" / "p.nii.gz", iter(values), count=6, like=like))
    assert written.shape == (5, 4, 3, 6)
    assert written.get_data_dtype() == np.float32
    np.testing.assert_allclose(written.affine, OBLIQUE, atol=1e-6)
    np.testing.assert_array_equal(np.moveaxis(np.asarray(written.dataobj), -1, 0), values)


def test_the_geometry_of_another_format(tmp_path):
    image = sitk.GetImageFromArray(np.zeros((3, 4, 5), np.int16))
    image.SetSpacing((0.5, 0.6, 2.0))
    image.SetOrigin((1.0, 2.0, 3.0))
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    like = read(tmp_path / "a.mha")
    values = numbers((5, 4, 3), 2)
    written = nibabel.load(write_channels(tmp_path / "p.nii.gz", iter(values), count=2, like=like))
    np.testing.assert_allclose(written.affine, like.affine, atol=1e-6)
    np.testing.assert_allclose(written.affine[:3, 3], (-1.0, -2.0, 3.0), atol=1e-6)
    np.testing.assert_array_equal(np.asarray(written.dataobj)[..., 1], values[1])


def test_a_picture(tmp_path):
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "a.png")
    values = numbers((4, 6), 3)
    written = nibabel.load(write_channels(tmp_path / "p.nii.gz", iter(values), count=3, like=read(tmp_path / "a.png")))
    assert written.shape == (4, 6, 1, 3)
    np.testing.assert_array_equal(np.asarray(written.dataobj)[:, :, 0, 2], values[2])


def test_a_channel_of_another_shape_leaves_nothing(tmp_path):
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="shape"):
        write_channels(tmp_path / "p.nii.gz", iter(numbers((4, 5), 3)), count=3, like=read(tmp_path / "a.png"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png"]


def test_the_same_numbers_give_the_same_bytes(tmp_path):
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "a.png")
    first, second = (
        write_channels(tmp_path / name, iter(numbers((4, 6), 3)), count=3, like=read(tmp_path / "a.png"))
        for name in ("p.nii.gz", "q.nii.gz")
    )
    assert first.read_bytes() == second.read_bytes()

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from segkit.data.cases import corner_distance, geometry_mismatch, read_image, read_label
from segkit.data.readers import read
from segkit.errors import DataError
from segkit.types import Case

SHAPE = (4, 5, 6)


def _save(path, array, affine=None):
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def test_channels_of_several_files_are_one_volume(tmp_path):
    parts = [np.full(SHAPE, value, dtype=np.float32) for value in (1, 2)]
    files = tuple(_save(tmp_path / f"a_000{k}.nii", part) for k, part in enumerate(parts))
    volume = read_image(Case("a", files, None, "a"))
    np.testing.assert_array_equal(volume.array, np.stack(parts))
    assert volume.path == files[0]


@pytest.mark.parametrize("fault", ["shape", "affine"])
def test_channels_that_lie_elsewhere_are_refused(tmp_path, fault):
    affine = np.eye(4)
    affine[0, 3] = 3 if fault == "affine" else 0
    other = np.zeros((4, 5, 7) if fault == "shape" else SHAPE, dtype=np.float32)
    files = (_save(tmp_path / "a.nii", np.zeros(SHAPE, np.float32)), _save(tmp_path / "b.nii", other, affine))
    with pytest.raises(DataError, match="one grid") as caught:
        read_image(Case("c7", files, None, "c7"))
    assert "case c7" in caught.value.where
    assert "b.nii" in caught.value.where
    assert ("3 mm" if fault == "affine" else "(4, 5, 7)") in caught.value.why


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite_are_counted(tmp_path, value):
    array = np.ones(SHAPE, dtype=np.float32)
    array[0, 0, :3] = value
    with pytest.raises(DataError, match="NaN or Inf") as caught:
        read_image(Case("c7", (_save(tmp_path / "a.nii", array),), None, "c7"))
    assert caught.value.why == "3 voxels, 2.500%"


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_labels_of_every_type_are_integers(tmp_path, dtype):
    array = np.arange(120).reshape(SHAPE).astype(dtype)
    path = _save(tmp_path / "a.nii", array)
    ids, volume = read_label(Case("a", (path,), path, "a"))
    np.testing.assert_array_equal(ids, np.arange(120).reshape(SHAPE))
    assert ids.dtype == np.int32
    assert volume.dtype == dtype


def test_a_slope_in_single_precision_leaves_integers_and_a_half_is_none(tmp_path):
    almost = _save(tmp_path / "a.nii", np.full(SHAPE, 0.9999, dtype=np.float32))
    assert (read_label(Case("a", (almost,), almost, "a"))[0] == 1).all()
    half = np.zeros(SHAPE, dtype=np.float32)
    half[0, 0, 0] = 0.5
    path = _save(tmp_path / "b.nii", half)
    with pytest.raises(DataError, match="no integers") as caught:
        read_label(Case("b", (path,), path, "b"))
    assert "0.83% of the voxels, such as 0.5" in caught.value.why


def test_labels_that_are_missing_or_not_finite_are_refused(tmp_path):
    path = _save(tmp_path / "a.nii", np.full(SHAPE, np.nan, dtype=np.float32))
    with pytest.raises(DataError, match="NaN"):
        read_label(Case("a", (path,), path, "a"))
    with pytest.raises(DataError, match="no label"):
        read_label(Case("a", (path,), None, "a"))


def test_affines_may_differ_by_the_rounding_of_headers_only(tmp_path):
    first = read(_save(tmp_path / "a.nii", np.zeros(SHAPE, np.uint8)))
    for shift, apart in ((5e-4, False), (2e-3, True)):
        affine = np.eye(4)
        affine[1, 3] = shift
        second = read(_save(tmp_path / "b.nii", np.zeros(SHAPE, np.uint8), affine))
        assert bool(geometry_mismatch(first, second)) is apart
    flipped = np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] = 3
    second = read(_save(tmp_path / "c.nii", np.zeros(SHAPE, np.uint8), flipped))
    assert corner_distance(first, second) == pytest.approx(3)  # the same box, mirrored: its corners change places


def test_pictures_are_compared_by_size_alone(tmp_path):
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "a.png")
    _save(tmp_path / "a.nii", np.zeros((4, 5), np.uint8), np.diag([9.0, 9, 9, 1]))
    assert geometry_mismatch(read(tmp_path / "a.png"), read(tmp_path / "a.nii")) == ""

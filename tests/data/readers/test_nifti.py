"""NIfTI: every damaged header is refused with its cause; masks keep the header of their image to the bit."""

import gzip
import struct
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest

from segkit.data.geometry import canonical, to_file_order
from segkit.data.readers import notes, read, write
from segkit.errors import DataError

VOXELS = np.random.default_rng(0).integers(0, 1000, (6, 5, 4)).astype(np.int16)
AFFINE = np.array([[-0.9, 0.1, 0, 90], [0.1, 0.9, 0, -126], [0, 0, 2.5, -72], [0, 0, 0, 1]])


def _save(path, voxels=VOXELS, affine=AFFINE, **fields):
    image = nib.Nifti1Image(voxels, affine)
    for name, value in fields.items():
        image.header[name] = value
    nib.save(image, path)
    return path


def _patched(path, offset, form, *values):
    """A file whose header bytes are overwritten: what no library would write."""
    content = bytearray(_save(path.with_name("good.nii")).read_bytes())
    struct.pack_into(form, content, offset, *values)
    path.write_bytes(gzip.compress(bytes(content)) if path.suffix == ".gz" else bytes(content))
    return path


def _refused(path, *words):
    with pytest.raises(DataError) as caught:
        read(path, case="case_007")
    error = caught.value
    assert error.exit_code == 65
    assert error.where == f"case case_007, image {path}"
    assert error.mend
    for word in words:
        assert word in str(error)


def test_truncated_gzip_tells_how_much_is_there(tmp_path):
    path = tmp_path / "a.nii.gz"
    _save(path, np.random.default_rng(0).integers(0, 255, (64, 64, 64)).astype(np.uint8))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])
    _refused(path, "gzip ends early", "of 0.26 MB unpacked", "copy the file again")


def test_gzip_cut_within_its_checksum_is_refused(tmp_path):
    path = _save(tmp_path / "a.nii.gz")
    path.write_bytes(path.read_bytes()[:-4])
    _refused(path, "gzip ends early")


def test_one_flipped_byte_is_found_by_the_checksum(tmp_path):
    path = _save(tmp_path / "a.nii.gz")
    content = bytearray(path.read_bytes())
    content[-6] ^= 0x10
    path.write_bytes(content)
    _refused(path, "damaged")


def test_truncated_plain_file(tmp_path):
    path = _save(tmp_path / "a.nii")
    path.write_bytes(path.read_bytes()[:-10])
    _refused(path, "file ends early")
    path.write_bytes(path.read_bytes()[:200])
    _refused(path, "file ends early")


def test_a_size_that_no_memory_holds_is_refused_by_the_header(tmp_path):
    _refused(_patched(tmp_path / "a.nii.gz", 40, "<4h", 3, 32000, 32000, 32000), "more voxels", "32000 x 32000 x 32000")


def test_a_bomb_is_left_where_its_header_ends(tmp_path, monkeypatch):
    import segkit.data.readers.nifti as nifti

    path = tmp_path / "a.nii.gz"
    content = _save(tmp_path / "good.nii").read_bytes()
    path.write_bytes(gzip.compress(content + bytes(64 << 20)))
    taken = []
    skip = nifti._skip

    def counted(file, size):
        taken.append(skip(file, size))
        return taken[-1]

    monkeypatch.setattr(nifti, "_skip", counted)
    _refused(path, "more than its header announces")
    assert sum(taken) <= (1 << 20) + 352


def test_a_little_padding_after_the_voxels_is_accepted(tmp_path):
    path = tmp_path / "a.nii"
    path.write_bytes(_save(tmp_path / "good.nii").read_bytes() + bytes(1000))
    np.testing.assert_array_equal(read(path).array[0], VOXELS)


@pytest.mark.parametrize(
    ("offset", "form", "values", "words"),
    [
        (42, "<h", (0,), ("axis 0 has 0",)),
        (44, "<h", (-5,), ("axis 1 has -5",)),
        (40, "<h", (9,), ("dim[0] is 9",)),
        (70, "<h", (999,), ("datatype is 999", "unknown")),
        (70, "<2h", (128, 24), ("RGB",)),
        (70, "<2h", (32, 64), ("complex",)),
        (80, "<f", (float("nan"),), ("pixdim",)),
        (280, "<12f", (0,) * 12, ("singular",)),
        (280, "<12f", (float("nan"),) * 12, ("not finite",)),
        (0, "<i", (0,), ("not a NIfTI file",)),
        (344, "<4s", (b"\0\0\0\0",), ("Analyze",)),
        (108, "<f", (1e9,), ("ends early",)),
    ],
)
def test_impossible_headers(tmp_path, offset, form, values, words):
    _refused(_patched(tmp_path / "a.nii", offset, form, *values), *words)


def test_a_pair_without_its_voxels(tmp_path):
    nib.save(nib.Nifti1Pair(VOXELS, AFFINE), tmp_path / "a.hdr")
    (tmp_path / "a.img").unlink()
    _refused(tmp_path / "a.hdr", "a.img")


def test_slope_and_intercept_are_applied_and_a_nan_slope_is_noted(tmp_path):
    path = _patched(tmp_path / "a.nii", 112, "<2f", 0.5, -3.0)
    volume = read(path)
    np.testing.assert_allclose(volume.array[0], VOXELS * 0.5 - 3)
    assert volume.dtype == np.int16  # what is stored, not what it becomes
    path = _patched(tmp_path / "b.nii", 112, "<2f", float("nan"), 0.0)
    np.testing.assert_array_equal(read(path).array[0], VOXELS)
    assert "scl_slope" in notes(path)[0]
    assert notes(_save(tmp_path / "c.nii")) == []


def test_sform_and_qform_that_differ_are_noted_and_the_sform_wins(tmp_path):
    image = nib.Nifti1Image(VOXELS, AFFINE)
    other = AFFINE.copy()
    other[0, 3] += 3
    image.set_qform(other, code=1)
    image.set_sform(AFFINE, code=2)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(read(tmp_path / "a.nii").affine, AFFINE, atol=1e-5)
    assert "3 mm" in notes(tmp_path / "a.nii")[0]


@pytest.mark.parametrize("codes", [(0, 1), (1, 0), (2, 1), (4, 4), (0, 0)])
def test_a_mask_keeps_every_geometric_field_of_its_image(tmp_path, codes):
    rigid = AFFINE.copy()
    rigid[:3, :3] = np.diag([-0.9, 0.9, 2.5])  # a qform holds no shear
    image = nib.Nifti1Image(VOXELS.astype(np.float32), rigid)
    image.set_sform(rigid, code=codes[0])
    image.set_qform(rigid, code=codes[1])
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "a.nii.gz")
    write(tmp_path / "m.nii.gz", (VOXELS > 500).astype(np.int32), like=read(tmp_path / "a.nii.gz"))
    before, after = (nib.load(tmp_path / name).header for name in ("a.nii.gz", "m.nii.gz"))
    for name in ("srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y"):
        assert before[name].tobytes() == after[name].tobytes()
    for name in ("sform_code", "qform_code", "pixdim", "dim", "datatype", "bitpix", "xyzt_units"):
        np.testing.assert_array_equal(before[name], after[name])
    np.testing.assert_array_equal(nib.load(tmp_path / "m.nii.gz").get_fdata(), VOXELS > 500)


def test_the_scaling_of_the_image_does_not_scale_the_mask(tmp_path):
    path = _patched(tmp_path / "a.nii", 112, "<2f", 0.5, -3.0)
    ids = (VOXELS % 3).astype(np.int32)
    write(tmp_path / "m.nii", ids, like=read(path))
    np.testing.assert_array_equal(nib.load(tmp_path / "m.nii").get_fdata(), ids)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("endianness", ["<", ">"])
def test_both_versions_and_byte_orders(tmp_path, kind, endianness):
    header = kind.header_class(endianness=endianness)
    header.set_data_dtype(np.int16)
    nib.save(kind(VOXELS, AFFINE, header=header), tmp_path / "a.nii")
    volume = read(tmp_path / "a.nii")
    np.testing.assert_array_equal(volume.array[0], VOXELS)
    assert volume.array.dtype.isnative
    ids = (VOXELS % 4).astype(np.int32)
    write(tmp_path / "m.nii", ids, like=volume)
    mask = nib.load(tmp_path / "m.nii")
    assert isinstance(mask, kind)
    assert mask.header.endianness == endianness
    np.testing.assert_array_equal(np.asarray(mask.dataobj), ids)
    np.testing.assert_allclose(mask.affine, AFFINE, atol=1e-6)


def test_same_mask_same_bytes(tmp_path):
    image = read(_save(tmp_path / "a.nii.gz"))
    first = write(tmp_path / "m1.nii.gz", np.ones((6, 5, 4), dtype=np.int32), like=image)
    second = write(tmp_path / "m2.nii.gz", np.ones((6, 5, 4), dtype=np.int32), like=image)
    assert first.read_bytes() == second.read_bytes()


def test_fourth_axis_is_channels_and_the_mask_has_none(tmp_path):
    voxels = np.random.default_rng(0).normal(size=(5, 4, 3, 2)).astype(np.float32)
    _save(tmp_path / "a.nii.gz", voxels)
    volume = read(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(volume.array, np.moveaxis(voxels, -1, 0))
    write(tmp_path / "m.nii.gz", np.ones((5, 4, 3), dtype=np.int32), like=volume)
    assert nib.load(tmp_path / "m.nii.gz").shape == (5, 4, 3)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1)])
def test_a_single_slice_is_2d_and_its_mask_has_its_shape(tmp_path, shape):
    voxels = np.arange(20, dtype=np.uint8).reshape(shape)
    _save(tmp_path / "a.nii.gz", voxels)
    volume = read(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(volume.array[0], voxels.reshape(5, 4))
    assert volume.affine.shape == (3, 3)
    np.testing.assert_allclose(volume.spacing, np.linalg.norm(AFFINE[:3, :2], axis=0), rtol=1e-6)
    write(tmp_path / "m.nii.gz", np.ones((5, 4), dtype=np.int32), like=volume)
    assert nib.load(tmp_path / "m.nii.gz").shape == shape


def test_two_more_axes_are_refused(tmp_path):
    _refused(_save(tmp_path / "a.nii", np.zeros((3, 3, 3, 2, 2), dtype=np.uint8)), "more than one axis")


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_every_orientation_comes_back_exactly(tmp_path, order):
    rotation = np.linalg.qr(np.eye(3) + 0.2 * np.random.default_rng(1).normal(size=(3, 3)))[0]
    for signs in product((1, -1), repeat=3):
        affine = np.eye(4)
        affine[:3, :3] = (rotation * np.sign(np.diag(rotation)) * signs * [0.5, 1.0, 3.0])[:, list(order)]
        image = read(_save(tmp_path / "a.nii", affine=affine))
        array, geometry = canonical(image)
        # The closest RAS+ order by nibabel's own rule.
        expected = nib.as_closest_canonical(nib.load(tmp_path / "a.nii"))
        np.testing.assert_array_equal(array[0], np.asarray(expected.dataobj))
        np.testing.assert_allclose(geometry.native_spacing, nib.affines.voxel_sizes(expected.affine), rtol=1e-5)
        ids = (array[0] % 7).astype(np.int32)
        write(tmp_path / "m.nii", to_file_order(ids, geometry), like=image)
        mask = nib.load(tmp_path / "m.nii")
        np.testing.assert_array_equal(mask.affine, nib.load(tmp_path / "a.nii").affine)
        np.testing.assert_array_equal(np.asarray(mask.dataobj), VOXELS % 7)

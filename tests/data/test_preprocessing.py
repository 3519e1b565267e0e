"""Crop, normalisation and resampling, each against its definition."""

import hashlib

import nibabel
import numpy as np
import pytest
from PIL import Image

from segkit.data.layouts import discover
from segkit.data.preprocessing import (
    content_hash_of,
    cut,
    label_dtype,
    nonzero_box,
    normalise,
    preprocess,
    read_case,
)
from segkit.errors import DataError
from segkit.planning.plan import Normalisation
from segkit.types import Case, Labels

LABELS = Labels(("background", "ball_a", "ball_b"), (0, 1, 2))
MASKED = Normalisation("zscore", masked=True)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def write_case(folder, image, label, affine=None, name="case"):
    affine = np.eye(4) if affine is None else affine
    paths = [folder / f"{name}_{kind}.nii.gz" for kind in ("image", "label")]
    for path, array in zip(paths, (image, label), strict=True):
        nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return Case(name, (paths[0],), paths[1], "someone")


def test_nonzero_box_is_the_smallest_that_holds_every_channel():
    image = np.zeros((2, 10, 12, 8), dtype=np.float32)
    image[0, 2, 3, 4] = 5
    image[1, 7, 3, 0] = -1
    assert nonzero_box(image) == ((2, 8), (3, 4), (0, 5))
    assert cut(image, nonzero_box(image)).shape == (2, 6, 1, 5)
    assert nonzero_box(np.zeros((1, 4, 5))) == ((0, 4), (0, 5))


def test_zscore_over_the_crop(rng):
    image = rng.normal(1.7e6, 3.0, (2, 9, 10, 11)).astype(np.float32)
    result, valid = normalise(image, (Normalisation("zscore"),) * 2)
    assert valid is None
    for before, after in zip(image.astype(np.float64), result, strict=True):
        assert after.mean() == pytest.approx(0, abs=1e-4)
        assert after.std() == pytest.approx(1, abs=1e-3)
        # Affine and increasing in the measured value.
        assert np.corrcoef(before.ravel(), after.ravel())[0, 1] == pytest.approx(1)


def test_masked_zscore_takes_its_statistics_inside_and_leaves_zero_outside(rng):
    image = np.zeros((1, 12, 12, 12), dtype=np.float32)
    image[0, 2:9, 2:9, 2:9] = rng.uniform(50, 90, (7, 7, 7))
    image[0, 5, 5, 5] = 0  # a hole is inside
    result, valid = normalise(image, (MASKED,))
    assert valid is not None
    assert valid.sum() == 343
    assert valid[5, 5, 5]
    assert result[0][valid].mean() == pytest.approx(0, abs=1e-5)
    assert result[0][valid].std() == pytest.approx(1, abs=1e-5)
    assert not result[0][~valid].any()


def test_ct_clips_and_scales_by_given_numbers():
    image = np.array([[[-2000.0, 0.0, 100.0, 5000.0]]], dtype=np.float32)
    scheme = Normalisation("ct", mean=20.0, std=40.0, low=-100.0, high=300.0)
    result, _ = normalise(image, (scheme,))
    assert result[0, 0].tolist() == pytest.approx([-3.0, -0.5, 2.0, 7.0])


def test_a_constant_image_stays_finite():
    for scheme in (MASKED, Normalisation("zscore")):
        result, _ = normalise(np.full((1, 5, 5), 7.0, dtype=np.float32), (scheme,))
        assert not result.any()
    result, _ = normalise(np.zeros((1, 5, 5), dtype=np.float32), (MASKED,))
    assert not result.any()


def test_none_leaves_intensities_alone(rng):
    image = rng.normal(size=(1, 6, 6)).astype(np.float32)
    result, _ = normalise(image, (Normalisation("none"),))
    assert np.array_equal(result, image)


def test_prepared_phantom_lies_on_the_plans_grid(tmp_path, plan, rng):
    image = rng.uniform(1, 9, (20, 12, 10)).astype(np.float32)
    label = np.zeros((20, 12, 10), dtype=np.uint8)
    label[4:12, 3:9, 2:8] = 2
    case = write_case(tmp_path, image, label, np.diag([1.0, 2.0, 1.5, 1.0]))
    prepared = preprocess(case, plan(spacing=(2.0, 2.0, 1.0)))
    assert prepared.image.shape == (1, 10, 12, 15)
    assert prepared.label.shape == (10, 12, 15)
    assert prepared.label[2:6, 3:9, 3:12].min() == 2
    assert (prepared.label > 0).mean() == pytest.approx((label > 0).mean(), rel=0.15)
    assert np.array_equal(prepared.native_label, label)
    assert prepared.native_instances is None
    assert prepared.geometry.native_spacing == pytest.approx((1.0, 2.0, 1.5))


def test_order_is_crop_normalise_resample(tmp_path, plan, rng):
    """Statistics are those of the measured voxels of the crop, whatever the grid afterwards."""
    image = np.zeros((24, 24, 24), dtype=np.float32)
    image[4:20, 4:20, 4:20] = rng.uniform(100, 200, (16, 16, 16))
    case = write_case(tmp_path, image, np.zeros_like(image, dtype=np.uint8))
    same = preprocess(case, plan())
    assert same.geometry.crop == ((4, 20),) * 3
    assert same.image.std() == pytest.approx(1, abs=1e-5)
    coarse = preprocess(case, plan(spacing=(4.0, 4.0, 4.0)))
    assert coarse.image.shape == (1, 4, 4, 4)
    # Noise averages out in resampling; normalising afterwards would have brought it back to 1.
    assert coarse.image.std() < 0.9


def test_masked_image_is_zero_outside_after_resampling_too(tmp_path, plan, rng):
    image = np.zeros((30, 30, 30), dtype=np.float32)
    image[3:27, 8:22, 8:22] = rng.uniform(100, 200, (24, 14, 14))
    image[8:22, 3:27, 3:27] = 150
    case = write_case(tmp_path, image, np.zeros_like(image, dtype=np.uint8))
    prepared = preprocess(case, plan(spacing=(0.8, 0.8, 0.8), normalisation=(MASKED,)))
    assert prepared.valid.shape == prepared.image.shape[1:]
    assert 0 < (~prepared.valid).sum() < prepared.valid.size
    assert not prepared.image[0][~prepared.valid].any()


def test_orientation_does_not_matter(tmp_path, plan, rng):
    """The same patient stored in another voxel order gives the same prepared case."""
    image = rng.uniform(1, 9, (9, 12, 10)).astype(np.float32)
    label = rng.integers(0, 3, image.shape).astype(np.uint8)
    straight = preprocess(write_case(tmp_path, image, label, np.diag([1.0, 1.5, 2.0, 1.0]), name="a"), plan())
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = -2.0, 1.0, 1.5, 1.0
    turned_arrays = [np.flip(array.transpose(2, 0, 1), 0).copy() for array in (image, label)]
    turned = preprocess(write_case(tmp_path, *turned_arrays, affine, name="b"), plan())
    assert np.array_equal(straight.image, turned.image)
    assert np.array_equal(straight.label, turned.label)
    assert turned.geometry.permutation == (1, 2, 0)


def test_ids_become_indices_and_the_ignored_value_minus_one(tmp_path, plan):
    image = np.ones((8, 8, 8), dtype=np.float32)
    label = np.zeros((8, 8, 8), dtype=np.uint8)
    label[0], label[1], label[2] = 17, 205, 255
    labels = Labels(("background", "a", "b"), (0, 17, 205), ignore_id=255)
    case = write_case(tmp_path, image, label)
    raw = read_case(case, labels)
    assert [int(raw.label[i, 0, 0]) for i in range(4)] == [1, 2, -1, 0]
    assert raw.label.dtype == np.int8
    with pytest.raises(DataError, match="not declared"):
        read_case(case, LABELS)


def test_instances_keep_their_ids_natively(paired_pictures):
    dataset = discover(paired_pictures(kind="instances"))
    labels = Labels(("background", "object"), (0, 1), "instances")
    raw = read_case(dataset.cases[2], labels)
    assert set(np.unique(raw.native_instances)) == {0, 1, 2, 3}
    assert set(np.unique(raw.native_label)) == {0, 1}
    assert np.array_equal(raw.native_label > 0, raw.native_instances > 0)


def test_label_on_another_grid_is_refused(tmp_path):
    case = write_case(tmp_path, np.ones((8, 8, 8), dtype=np.float32), np.ones((8, 8, 7), dtype=np.uint8))
    with pytest.raises(DataError, match="one grid"):
        read_case(case, LABELS)


def test_an_image_that_does_not_fit_the_plan_is_refused(tmp_path, plan):
    colour = np.full((10, 12, 3), 9, dtype=np.uint8)
    Image.fromarray(colour).save(tmp_path / "picture.png")
    case = Case("picture", (tmp_path / "picture.png",), None, "picture")
    with pytest.raises(DataError, match="does not fit the model"):
        preprocess(case, plan())
    fitting = preprocess(case, plan(spacing=(1.0, 1.0), normalisation=(Normalisation("zscore"),) * 3))
    assert fitting.image.shape == (3, 10, 12)
    assert fitting.label is None


def test_label_dtype_holds_every_class_and_minus_one():
    for classes in (2, 128, 129, 300):
        limits = np.iinfo(label_dtype(classes))
        assert limits.min <= -1
        assert limits.max >= classes - 1


def test_content_hash_knows_contents_and_order_but_not_names(tmp_path):
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path, content in zip(paths, (b"one", b"two", b"one"), strict=True):
        path.write_bytes(content)
    a, b, c = paths
    assert content_hash_of([a, b]) == content_hash_of([c, b]) != content_hash_of([b, a])
    digest = hashlib.sha256(hashlib.sha256(b"one").hexdigest().encode()).hexdigest()
    assert content_hash_of([a]) == digest

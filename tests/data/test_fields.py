"""Instances and Voronoi cells against brute force."""

from dataclasses import replace

import numpy as np
import pytest

from segkit.data.fields import cells, instances
from segkit.data.layouts import discover
from segkit.data.preprocessing import preprocess
from segkit.planning.plan import Normalisation
from segkit.types import Labels


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (3.0, 0.5)])
def test_cell_is_the_nearest_instance_in_mm(spacing):
    ids = np.zeros((12, 15), dtype=np.int32)
    ids[2, 3], ids[9:11, 10:13], ids[1, 13] = 4, 7, 9
    found = cells(ids, spacing=spacing)
    voxels = np.argwhere(ids)
    for index in np.ndindex(ids.shape):
        distances = np.linalg.norm((voxels - np.array(index)) * spacing, axis=1)
        nearest = {int(ids[tuple(v)]) for v, d in zip(voxels, distances, strict=True) if d <= distances.min() + 1e-9}
        assert int(found[index]) in nearest
    assert np.array_equal(found[ids > 0], ids[ids > 0])


def test_no_instance_no_cell():
    assert not cells(np.zeros((4, 4), dtype=np.int32), spacing=(1.0, 1.0)).any()


def test_annotated_ids_are_resampled_with_the_label(paired_pictures, plan):
    case = discover(paired_pictures(kind="instances")).cases[3]
    labels = Labels(("background", "object"), (0, 1), "instances")
    prepared = preprocess(case, plan(spacing=(0.5, 0.5), labels=labels, normalisation=(Normalisation("zscore"),)))
    ids = instances(prepared, spacing=(0.5, 0.5))
    assert ids.shape == prepared.label.shape
    assert set(np.unique(ids)) == {0, 1, 2, 3, 4}
    assert np.array_equal(ids > 0, prepared.label > 0)


def test_touching_objects_keep_their_ids(paired_pictures, plan):
    """Four objects in one block, saved with numbers far apart: still four, numbered 1 to 4, none split or joined."""
    case = discover(paired_pictures(kind="instances")).cases[3]
    labels = Labels(("background", "object"), (0, 1), "instances")
    prepared = preprocess(case, plan(spacing=(1.0, 1.0), labels=labels, normalisation=(Normalisation("zscore"),)))
    given = np.zeros(prepared.label.shape, dtype=np.int32)
    given[2:6, 2:6], given[2:6, 6:9], given[6:8, 2:9], given[20, 20] = 30, 7, 900, 5
    native = np.zeros(prepared.native_instances.shape, dtype=np.int32)
    crop = tuple(slice(*side) for side in prepared.geometry.crop)
    native[crop] = given
    touching = replace(prepared, native_instances=native, label=(given > 0).astype(np.int8))
    ids = instances(touching, spacing=(1.0, 1.0))
    assert np.unique(ids).tolist() == [0, 1, 2, 3, 4]
    for number, name in enumerate((5, 7, 30, 900), start=1):
        assert np.array_equal(ids == number, given == name)


def test_components_stand_in_where_nobody_gave_ids(nnunet_raw, plan):
    case = discover(nnunet_raw(cases=1)).cases[0]
    prepared = preprocess(case, plan())
    ids = instances(prepared, spacing=(1.0, 1.0, 1.0))
    assert np.array_equal(ids > 0, prepared.label > 0)
    # A ball of each class: no component is of two.
    assert ids.max() == 2
    assert all(len(np.unique(prepared.label[ids == k])) == 1 for k in (1, 2))

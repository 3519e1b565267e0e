"""Patches against slicing of a padded copy, and how little of a file they touch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from segkit.data.layouts import discover
from segkit.data.patches import Collate, PatchDataset, Sample, cut_padded, inside_image
from segkit.data.sampling import Draw
from segkit.data.store import Store
from segkit.errors import DataError
from segkit.planning.plan import Normalisation


@pytest.fixture
def stored(nnunet_raw, tmp_path, plan):
    cases = discover(nnunet_raw(cases=2)).cases
    return Store(tmp_path / "cache").prepare_all(cases, plan(), needs=frozenset({"cells", "instances"}))


@pytest.mark.parametrize("start", [(0, 0), (-3, 2), (5, -2), (4, 6), (-9, 0), (30, 30), (-3, -3)])
@pytest.mark.parametrize("size", [(4, 4), (12, 3), (20, 20)])
def test_cut_equals_slicing_a_padded_copy(start, size):
    array = np.arange(1, 2 * 9 * 11 + 1, dtype=np.float32).reshape(2, 9, 11)
    padded = np.pad(array, ((0, 0), (60, 60), (60, 60)))
    expected = padded[:, start[0] + 60 : start[0] + 60 + size[0], start[1] + 60 : start[1] + 60 + size[1]]
    found = cut_padded(array, start, size)
    assert np.array_equal(found, expected)
    assert found.dtype == array.dtype
    assert np.array_equal(inside_image((9, 11), start, size), expected[0] > 0)


def test_reading_a_patch_touches_only_its_pages(tmp_path):
    """Counted by the kernel: pages of the mapping that came into memory."""
    path = tmp_path / "image.npy"
    shape = (1, 64, 256, 256)
    np.save(path, np.zeros(shape, dtype=np.float32))
    resident = _resident_pages(path)
    if resident is None:
        pytest.skip("this system does not tell which pages of a file are mapped")
    mapped = np.load(path, mmap_mode="r")
    cut_padded(mapped, (10, 20, 30), (4, 8, 8))
    touched = _resident_pages(path)
    del mapped
    total = path.stat().st_size
    assert 0 < touched < 0.2 * total


def _resident_pages(path):
    """Bytes of `path` in this process's mappings that are resident, from /proc/self/smaps."""
    smaps = Path("/proc/self/smaps")
    if not smaps.is_file():
        return None
    total, inside = 0, False
    for line in smaps.read_text().splitlines():
        if "-" in line.split(" ")[0] and not line.startswith(("Vm", "Th")):
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def test_sample_holds_the_voxels_of_its_case(stored):
    dataset = PatchDataset(stored, source_size=(8, 40, 10), fields=frozenset({"cells"}))
    sample = dataset[Draw(7, 1, (3, -8, 4))]
    image, label = stored[1].array("image"), stored[1].array("label")
    assert (sample.n, sample.case_id) == (7, stored[1].case_id)
    assert np.array_equal(sample.arrays["image"][:, :, 8:32], image[:, 3:11, :, 4:14])
    assert np.array_equal(sample.arrays["label"][:, 8:32], label[3:11, :, 4:14])
    assert set(sample.arrays) == {"image", "label", "valid", "cells"}
    assert sample.arrays["valid"][:, 8:32].all()
    assert sample.arrays["valid"].sum() == 8 * 24 * 10
    assert not sample.arrays["image"][:, ~sample.arrays["valid"]].any()


def test_masked_normalisation_brings_its_own_valid(nnunet_raw, tmp_path, plan):
    case = discover(nnunet_raw(cases=1)).cases[0]
    masked = plan(normalisation=(Normalisation("zscore", masked=True),))
    (entry,) = Store(tmp_path / "masked").prepare_all([case], masked)
    sample = PatchDataset([entry], source_size=(30, 30, 30))[Draw(0, 0, (-5, -3, -6))]
    assert sample.arrays["valid"].sum() == entry.array("valid").sum()


def test_collate_gives_a_batch_with_what_the_loss_needs(stored):
    fields = frozenset({"cells", "instances"})
    dataset = PatchDataset(stored, source_size=(8, 8, 8), fields=fields)
    samples = [dataset[Draw(n, n % 2, (2, 3, 4))] for n in range(3)]
    everything = Collate(fields | {"labels_present"}, 3, (1.0, 1.0, 2.0))(samples)
    assert everything.image.shape == (3, 1, 8, 8, 8)
    assert everything.target.label.shape == (3, 1, 8, 8, 8)
    assert everything.target.label.dtype == torch.int8
    assert everything.target.cells.shape == everything.target.instances.shape == (3, 1, 8, 8, 8)
    assert everything.target.labels_present.tolist() == [[True] * 3] * 3
    assert everything.target.spacing == (1.0, 1.0, 2.0)
    assert everything.n == (0, 1, 2)
    assert everything.valid is None  # every voxel lies inside
    bare = Collate(frozenset(), 3, (1.0, 1.0, 2.0))(samples)
    assert bare.target.cells is bare.target.instances is bare.target.labels_present is None
    assert bare.target.spacing == (1.0, 1.0, 2.0), "losses in mm need not ask for it"


def test_ids_are_numbered_anew_within_each_sample():
    """Ids 3 and 8 lie in the first patch, 8 as a cell alone; 5 in the second: the largest number is 2."""
    shape = (1, 4)
    instances = [np.array([[0, 3, 0, 0]]), np.array([[5, 5, 0, 0]])]
    cells = [np.array([[3, 3, 8, 8]]), np.array([[5, 5, 5, 5]])]
    common = {"image": np.zeros((1, *shape), np.float32), "label": np.zeros(shape, np.int8)}
    samples = [
        Sample(n, "c", {**common, "valid": np.ones(shape, bool), "instances": i, "cells": c})
        for n, (i, c) in enumerate(zip(instances, cells, strict=True))
    ]
    both = Collate(frozenset({"instances", "cells"}), 2, (1.0, 1.0))(samples).target
    assert both.instances.tolist() == [[[[0, 1, 0, 0]]], [[[1, 1, 0, 0]]]]
    assert both.cells.tolist() == [[[[1, 1, 2, 2]]], [[[1, 1, 1, 1]]]]
    assert both.num_instances == 2
    assert both.cells.dtype == torch.int16
    alone = Collate(frozenset({"instances"}), 2, (1.0, 1.0))(samples).target
    assert (alone.num_instances, alone.cells) == (1, None)
    assert Collate(frozenset(), 2, (1.0, 1.0))(samples).target.num_instances is None


def test_valid_is_there_as_soon_as_one_sample_was_padded(stored):
    dataset = PatchDataset(stored, source_size=(8, 8, 8))
    batch = Collate(frozenset(), 3, (1.0,) * 3)([dataset[Draw(0, 0, (0, 0, 0))], dataset[Draw(1, 0, (-1, 0, 0))]])
    assert batch.valid is not None
    assert batch.valid[0].all()
    assert not batch.valid[1, 0, 0].any()


def test_an_unreadable_entry_names_its_case(stored):
    (stored[0].folder / "image.npy").unlink()
    with pytest.raises(DataError, match=stored[0].case_id):
        PatchDataset(stored, source_size=(8, 8, 8))[Draw(0, 0, (0, 0, 0))]


def test_labels_present_are_the_annotated_classes_of_each_sample(stored):
    partly = [stored[0], replace(stored[1], annotated=frozenset({2}))]
    dataset = PatchDataset(partly, source_size=(8, 8, 8))
    samples = [dataset[Draw(n, n, (2, 3, 4))] for n in range(2)]
    present = Collate(frozenset({"labels_present"}), 3, (1.0,) * 3)(samples).target.labels_present
    assert present.tolist() == [[True, True, True], [True, False, True]]

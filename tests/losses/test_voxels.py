"""Logits and label voxel by voxel."""

import pytest
import torch

from segkit.losses.voxels import by_class, voxels


def test_ignored_voxels_are_in_no_class_and_unknown():
    label = torch.tensor([[[[0, 2], [-1, 1]]]], dtype=torch.int16)
    x, truth, known = voxels(torch.zeros(1, 3, 2, 2, dtype=torch.float16), label)
    assert x.dtype == truth.dtype == known.dtype == torch.float32
    assert truth[0, :, 0, 1].tolist() == [0, 0, 1]
    assert truth[0, :, 1, 0].tolist() == [0, 0, 0]
    assert known[0, 0].tolist() == [[1, 1], [0, 1]]


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(RuntimeError, match="none of the 2 classes"):
        voxels(torch.zeros(1, 2, 2, 2), torch.full((1, 1, 2, 2), 2))


def test_one_number_for_each_class():
    assert (by_class(torch.tensor([1.0, 2.0]), torch.ones(1, 2, 3, 4)) * torch.ones(1, 2, 3, 4))[
        0, :, 0, 0
    ].tolist() == [1, 2]

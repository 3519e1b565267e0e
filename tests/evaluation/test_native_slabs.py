import numpy as np
import pytest
import torch

from segkit.evaluation.native import native_prediction
from segkit.evaluation.native_slabs import native_slabs, resample_rows
from segkit.ops.resample import resample_logits

GRIDS = [
    ((7, 9, 5), (11, 9, 8), None),
    ((7, 9, 5), (4, 12, 5), None),
    ((3, 10, 8), (5, 13, 8), 0),
    ((10, 3, 8), (7, 5, 9), 1),
    ((10, 8, 3), (10, 9, 5), 2),
    ((9, 6), (5, 11), None),
    ((1, 6), (5, 6), None),
]


@pytest.mark.parametrize(("here", "there", "apart"), GRIDS)
def test_rows_are_those_of_the_whole(here, there, apart):
    logits = torch.randn(3, *here)
    whole = resample_logits(logits, there, separate_axis=apart)
    for start in range(0, there[0], 2):
        rows = slice(start, min(there[0], start + 2))
        torch.testing.assert_close(resample_rows(logits, there, rows, separate_axis=apart), whole[:, rows])


@pytest.mark.parametrize("max_values", [1, 300, 10**9])
def test_the_largest_is_what_is_predicted(made, max_values):
    """Two members on two grids, thick slices among them; the classes of the crop are `native_prediction`'s."""
    way_back = made.geometry((12, 14, 9), spacing=(1.0, 1.0, 4.0), crop=((1, 11), (0, 14), (2, 9)))
    members = [torch.randn(3, 10, 14, 7), torch.randn(3, 12, 9, 7)]
    crop = tuple(slice(start, stop) for start, stop in way_back.crop)
    expected = native_prediction(members, way_back)[crop]
    parts = list(native_slabs(members, way_back, max_values=max_values))
    assert [part.start for part, _ in parts] == [0, *(part.stop for part, _ in parts[:-1])]
    found = torch.cat([logits for _, logits in parts], dim=1)
    np.testing.assert_array_equal(found.argmax(0).numpy(), expected)
    assert max(logits.numel() for _, logits in parts) <= max(max_values, 3 * 14 * 7)

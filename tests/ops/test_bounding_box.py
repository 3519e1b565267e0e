import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from segkit.ops.bounding_box import bounding_box, boxes_of, union_box


@given(arrays(np.int16, array_shapes(min_dims=2, max_dims=3, max_side=6), elements=st.integers(-1, 3)))
def test_a_box_holds_all_of_it_and_no_empty_face(label):
    found = boxes_of(label)
    assert set(found) == set(np.unique(label[label > 0]).tolist())
    for value, box in found.items():
        mask = label == value
        assert bounding_box(mask) == box
        assert np.count_nonzero(mask[box]) == np.count_nonzero(mask)
        for axis in range(mask.ndim):
            assert mask[box].take(0, axis=axis).any()
            assert mask[box].take(-1, axis=axis).any()
    assert union_box(*found.values()) == bounding_box(label > 0)


def test_nothing_has_no_box():
    assert bounding_box(np.zeros((3, 4), dtype=bool)) is None
    assert boxes_of(np.zeros((3, 4), dtype=np.int16)) == {}
    assert union_box(None, None) is None
    assert union_box() is None

from itertools import permutations, product
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from segkit.data.geometry import canonical, to_file_order
from segkit.types import Volume

ARRAY = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)


def _volume(matrix, array=ARRAY, unit="mm"):
    affine = np.eye(len(matrix) + 1)
    affine[:-1, :-1] = matrix
    spacing = tuple(float(s) for s in np.linalg.norm(matrix, axis=0))
    return Volume(array, affine, spacing, unit, array.dtype, Path("a.nii"))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(angles=st.tuples(*[st.floats(-180, 180)] * 3), steps=st.tuples(*[st.floats(0.1, 10)] * 3))
def test_there_and_back_is_the_identity_for_any_rotation(angles, steps):
    volume = _volume(Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * steps)
    array, geometry = canonical(volume)
    np.testing.assert_array_equal(to_file_order(array, geometry), ARRAY)
    np.testing.assert_array_equal(to_file_order(array[0], geometry), ARRAY[0])
    assert geometry.native_shape == array.shape[1:]
    assert geometry.crop == tuple((0, n) for n in geometry.native_shape)
    # The new axes point to right, anterior and superior, each closer than the reversed one would.
    turned = np.linalg.norm(volume.affine[:3, :3], axis=0)[list(geometry.permutation)]
    np.testing.assert_allclose(geometry.native_spacing, turned)


def test_axis_aligned_images_come_out_in_exact_ras_order():
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        matrix = np.zeros((3, 3))
        for axis, world in enumerate(order):
            matrix[world, axis] = signs[axis] * (axis + 1.5)
        array, geometry = canonical(_volume(matrix))
        # World coordinate i must be a rising function of index i alone.
        index = np.stack(np.meshgrid(*map(np.arange, ARRAY.shape[1:]), indexing="ij")).reshape(3, -1)
        world = (matrix @ index).reshape(3, *ARRAY.shape[1:])
        turned, _ = canonical(_volume(matrix, world))
        for i in range(3):
            assert (np.diff(turned[i], axis=i) > 0).all()
            assert all((np.diff(turned[i], axis=j) == 0).all() for j in range(3) if j != i)
        np.testing.assert_array_equal(to_file_order(array, geometry), ARRAY)


def test_pictures_keep_their_order():
    picture = _volume(np.eye(2), ARRAY[:, 0], unit="pixel")
    array, geometry = canonical(picture)
    np.testing.assert_array_equal(array, picture.array)
    assert geometry.permutation == (0, 1)
    assert geometry.flips == (False, False)
    assert geometry.unit == "pixel"
    slice_2d = _volume(np.diag([-1.0, -1.0]), ARRAY[:, 0])
    np.testing.assert_array_equal(canonical(slice_2d)[0], slice_2d.array)


def test_image_and_label_whose_headers_differ_in_the_last_bit_do_not_part_at_45_degrees():
    turn = Rotation.from_euler("z", 45, degrees=True).as_matrix()
    orders = {canonical(_volume(turn * (1 + e)))[1].permutation for e in (0, 1e-7, -1e-7)}
    noise = np.random.default_rng(0).normal(scale=1e-8, size=(20, 3, 3))
    orders |= {canonical(_volume(turn + part))[1].permutation for part in noise}
    assert orders == {(0, 1, 2)}

"""From planes of the crop to a file in the image's geometry."""

import nibabel
import numpy as np
import torch

from segkit.data.geometry import canonical
from segkit.data.readers import read
from segkit.types import Case, Geometry
from segkit.workflows.probabilities import Probabilities, probability_path


def test_every_voxel_lands_where_it_was(tmp_path):
    affine = np.diag([-1.0, 2.0, 1.5, 1.0])[[1, 0, 2, 3]]  # another order of axes, one turned round
    shape = (6, 5, 7)
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.int16), affine), tmp_path / "a.nii.gz")
    like = read(tmp_path / "a.nii.gz")
    _, geometry = canonical(like)
    native = geometry.native_shape
    crop = tuple((1, n - 1) for n in native)
    geometry = Geometry(geometry.permutation, geometry.flips, native, geometry.native_spacing, crop)
    inside = torch.rand(3, *(n - 2 for n in native), generator=torch.Generator().manual_seed(0)).softmax(0)
    kept = Probabilities(3, geometry, scratch=tmp_path)
    for begin in range(0, inside.shape[1], 2):
        kept.keep(begin, inside[:, begin : begin + 2])
    path = kept.write(probability_path(tmp_path / "out", Case("a", (), None, "a")), like=like)
    written = nibabel.load(path)
    assert path == tmp_path / "out" / "probabilities" / "a.nii.gz"
    assert written.shape == (*shape, 3)
    np.testing.assert_allclose(written.affine, affine, atol=1e-6)
    found = np.asarray(written.dataobj)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)
    # By world position: voxel v of the RAS+ array lies where the canonical image says.
    ras = nibabel.as_closest_canonical(nibabel.Nifti1Image(found, affine)).get_fdata(dtype=np.float32)
    np.testing.assert_array_equal(ras[1:-1, 1:-1, 1:-1], inside.permute(1, 2, 3, 0).numpy())
    assert (ras[0, ..., 0] == 1).all()
    assert (ras[0, ..., 1:] == 0).all()

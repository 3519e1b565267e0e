import nibabel as nib
import numpy as np

from segkit.data.facts import facts_of
from segkit.types import Case


def _save(path, array, affine=None):
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def test_what_is_kept_of_a_good_case(tmp_path):
    image = np.zeros((4, 5, 6), dtype=np.float32)
    image[:2] = np.arange(1, 61).reshape(2, 5, 6)
    label = (image > 30).astype(np.uint8) * 2
    case = Case("a", (_save(tmp_path / "a.nii", image),), _save(tmp_path / "l.nii", label), "a")
    facts = facts_of(case)
    assert facts.findings == ()
    assert (facts.shape, facts.channels, facts.values, facts.stacked) == ((4, 5, 6), 1, (0, 2), False)
    assert facts.median == 30.5  # of the voxels that are not 0
    # The same voxels in another packing are the same image.
    packed = Case("b", (_save(tmp_path / "b.nii.gz", image),), case.label, "b")
    assert facts_of(packed).digest == facts.digest
    other = image.copy()
    other[3, 4, 5] = 1
    assert facts_of(Case("c", (_save(tmp_path / "c.nii", other),), case.label, "c")).digest != facts.digest


def test_image_and_label_are_both_tried(tmp_path):
    (tmp_path / "a.nii.gz").write_text("text")
    (tmp_path / "l.nii.gz").write_text("text")
    facts = facts_of(Case("a", (tmp_path / "a.nii.gz",), tmp_path / "l.nii.gz", "a"))
    assert [finding.file for finding in facts.findings] == [str(tmp_path / "a.nii.gz"), str(tmp_path / "l.nii.gz")]
    assert {finding.case for finding in facts.findings} == {"a"}


def test_a_constant_channel_is_named(tmp_path):
    files = (
        _save(tmp_path / "a_0000.nii", np.arange(60).reshape(3, 4, 5).astype(np.int16)),
        _save(tmp_path / "a_0001.nii", np.full((3, 4, 5), 7, dtype=np.int16)),
    )
    label = _save(tmp_path / "l.nii", np.ones((3, 4, 5), dtype=np.uint8))
    (finding,) = facts_of(Case("a", files, label, "a")).findings
    assert (finding.level, finding.what, finding.file) == ("warning", "the image is constant", str(files[1]))

import nibabel as nib
import numpy as np
import pytest
from benchmarks.accuracy.scoring import CaseScore, dice, read_table, score_folder, write_table


def test_dice_is_its_formula():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 4, 5, 6)) > 0.6
    assert dice(a, b) == pytest.approx(2 * np.sum(a & b) / (a.sum() + b.sum()))
    assert (dice(a, a), dice(a, ~a)) == (1.0, 0.0)
    assert dice(a, b) == dice(b, a)


def test_nothing_found_where_nothing_is_is_right():
    empty = np.zeros((2, 2, 2), bool)
    assert dice(empty, empty) == 1.0
    assert dice(empty, ~empty) == 0.0


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="shape"):
        dice(np.zeros((2, 2, 2), bool), np.zeros((2, 2, 1), bool))


@pytest.fixture
def folder(tmp_path):
    """Two cases whose masks are their labels, one voxel of class 1 turned to class 2 in the second."""
    (tmp_path / "labelsTr").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "groups.csv").write_text("case,group\na,p\nb,q\n")
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[:2, :2, :2], labels[2:, 2:, 2:] = 1, 2
    for case in "ab":
        mask = labels.copy()
        if case == "b":
            mask[0, 0, 0] = 2
        # A label may be stored as floating point, as two of the real ones are.
        nib.save(nib.Nifti1Image(labels.astype(np.float32), np.eye(4)), tmp_path / "labelsTr" / f"{case}.nii.gz")
        nib.save(nib.Nifti1Image(mask, np.eye(4)), tmp_path / "masks" / f"{case}.nii.gz")
    return tmp_path


def test_cases_are_scored_by_class(folder):
    a, b = score_folder(folder / "masks", folder, ["a", "b"])
    assert (a.case, a.group, a.dice, a.mean) == ("a", "p", (1.0, 1.0), 1.0)
    assert b.dice == pytest.approx((2 * 7 / (7 + 8), 2 * 8 / (9 + 8)))
    assert b.mean == pytest.approx(sum(b.dice) / 2)


def test_a_missing_mask_is_an_error(folder):
    (folder / "masks" / "b.nii.gz").unlink()
    with pytest.raises(FileNotFoundError):
        score_folder(folder / "masks", folder, ["a", "b"])


def test_a_mask_elsewhere_is_refused(folder):
    path = folder / "masks" / "a.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.diag([2.0, 1, 1, 1])), path)
    with pytest.raises(ValueError, match="does not lie"):
        score_folder(folder / "masks", folder, ["a"])


def test_a_table_is_read_as_it_was_written(tmp_path):
    rows = [CaseScore("a", "p", (0.25, 0.5)), CaseScore("b", "q", (1.0, 0.0))]
    write_table(tmp_path / "new" / "table.csv", rows)
    assert read_table(tmp_path / "new" / "table.csv") == rows

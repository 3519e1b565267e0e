import numpy as np
import pytest
from PIL import Image

from segkit.data.readers import ending_of, mask_name, read, stem_of, write
from segkit.errors import DataError
from segkit.types import Volume


@pytest.mark.parametrize(
    ("name", "ending", "stem"),
    [
        ("a.nii.gz", ".nii.gz", "a"),
        ("a.b.NII.GZ", ".nii.gz", "a.b"),
        ("a.nii", ".nii", "a"),
        ("a.JPG", ".jpg", "a"),
        ("notes.txt", None, "notes"),
        (".png", None, ".png"),
    ],
)
def test_ending_and_stem(tmp_path, name, ending, stem):
    assert ending_of(tmp_path / name) == ending
    assert stem_of(tmp_path / name) == stem


def test_masks_of_jpegs_are_png(tmp_path):
    assert mask_name("case", tmp_path / "a.jpeg") == "case.png"
    assert mask_name("case", tmp_path / "a.nii.gz") == "case.nii.gz"


def test_missing_empty_and_unknown_files_are_data_errors(tmp_path):
    with pytest.raises(DataError, match="not there") as caught:
        read(tmp_path / "gone.nii.gz", case="c1")
    assert "case c1" in caught.value.where
    empty = tmp_path / "empty.nii.gz"
    empty.touch()
    with pytest.raises(DataError, match="empty"):
        read(empty)
    (tmp_path / "a.dcm").write_bytes(b"x")
    with pytest.raises(DataError, match="no file type"):
        read(tmp_path / "a.dcm")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(DataError, match="folder"):
        read(tmp_path / "folder.png")


def test_broken_links_and_loops_are_data_errors(tmp_path):
    (tmp_path / "broken.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match="link") as caught:
        read(tmp_path / "broken.png")
    assert "gone.png" in str(caught.value)
    (tmp_path / "a.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(DataError, match="reached"):
        read(tmp_path / "a.png")


def test_a_mask_of_another_shape_is_refused(tmp_path):
    image = Volume(np.zeros((1, 4, 4)), np.eye(3), (1.0, 1.0), "pixel", np.dtype("uint8"), tmp_path / "a.png")
    with pytest.raises(ValueError, match="shape"):
        write(tmp_path / "m.png", np.zeros((4, 5), dtype=np.int32), like=image)


def test_a_case_id_with_a_dot_keeps_it(tmp_path):
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "a.png")
    image = read(tmp_path / "a.png")
    assert write(tmp_path / "scan.1", np.ones((4, 5), dtype=np.int32), like=image).name == "scan.1.png"

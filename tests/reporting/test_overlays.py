from pathlib import Path

import matplotlib
import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from segkit.reporting.overlays import PREDICTION_COLOUR, REFERENCE_COLOUR, draw_overlay, outline_field
from segkit.types import Labels

TWO = Labels(("background", "blob"), (0, 1))
THREE = Labels(("background", "anterior", "posterior"), (0, 1, 2))


def _share(path: Path, colour: str) -> float:
    """Share of the pixels that have this colour."""
    picture = matplotlib.image.imread(path)[..., :3]
    return float((np.abs(picture - np.array(to_rgb(colour))).max(axis=-1) < 0.08).mean())


def _box(shape=(20, 24, 16)):
    label = np.zeros(shape, dtype=np.int64)
    label[5:12, 6:15, 4:10] = 1
    return label


@pytest.mark.parametrize("pixel", [(1.0, 1.0), (5.0, 1.0), (0.5, 2.0)])
def test_the_outline_runs_on_the_faces_of_the_voxels(pixel):
    """Rows 3..6 and columns 2..9 of a grid: the contour's box is exactly the voxels' box, and its area theirs."""
    mask = np.zeros((10, 12), dtype=bool)
    mask[3:7, 2:10] = True
    xs, ys, field = outline_field(mask, pixel)
    (line,) = Figure().subplots().contour(xs, ys, field, levels=[0.5]).allsegs[0]
    assert line.min(axis=0) == pytest.approx((2 * pixel[1], 3 * pixel[0]))
    assert line.max(axis=0) == pytest.approx((10 * pixel[1], 7 * pixel[0]))
    x, y = line.T
    area = abs(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2
    corners = 4 * pixel[0] * pixel[1] / 8  # each corner is cut off diagonally
    assert area == pytest.approx(4 * 8 * pixel[0] * pixel[1] - corners)


def test_an_outline_closes_at_the_border_of_the_image():
    xs, ys, field = outline_field(np.ones((4, 4), dtype=bool), (1.0, 1.0))
    (line,) = Figure().subplots().contour(xs, ys, field, levels=[0.5]).allsegs[0]
    assert np.array_equal(line[0], line[-1])
    assert line.min() == 0.0
    assert line.max() == 4.0


def test_both_contours_are_there_and_told_apart(tmp_path):
    label = _box()
    image = (label * 100 + np.random.default_rng(0).normal(0, 5, label.shape)).astype(np.float32)
    spacing = (1.0, 1.0, 2.0)
    for name, reference, prediction in (
        ("both", label, np.roll(label, 2, 1)),
        ("truth", label, None),
        ("none", None, None),
    ):
        path = tmp_path / "sub" / f"{name}.png"
        draw_overlay(image[None], reference, prediction, path=path, title=name, spacing=spacing, labels=TWO)
        assert (_share(path, REFERENCE_COLOUR) > 5e-4) == (reference is not None), name
        assert (_share(path, PREDICTION_COLOUR) > 5e-4) == (prediction is not None), name


def test_the_same_case_gives_the_same_bytes(tmp_path):
    label = _box()
    for name in ("a.png", "b.png"):
        image = label[None].astype(np.float32)
        draw_overlay(image, label, label, path=tmp_path / name, title="t", spacing=(1.0,) * 3, labels=TWO)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_colour_picture_is_shown_in_colour(tmp_path):
    red = np.zeros((3, 30, 40), dtype=np.uint8)
    red[0] = 200
    label = np.zeros((30, 40), dtype=np.int64)
    draw_overlay(red, label, None, path=tmp_path / "red.png", title="", spacing=(1.0, 1.0), labels=TWO, unit="pixel")
    assert _share(tmp_path / "red.png", "#c80000") > 0.5


@pytest.mark.parametrize("value", [0.0, np.nan, 1e30])
def test_degenerate_images_are_drawn(tmp_path, value):
    image = np.full((1, 6, 5, 4), value, dtype=np.float32)
    label = np.full((6, 5, 4), -1, dtype=np.int64)
    label[2, 2, 2] = 2
    path = tmp_path / "odd.png"
    draw_overlay(image, label, label, path=path, title="odd", spacing=(1.0,) * 3, labels=THREE)
    assert path.stat().st_size > 1000


def test_a_wrong_number_of_spacings_is_refused(tmp_path):
    image = np.zeros((1, 6, 5, 4), dtype=np.float32)
    with pytest.raises(ValueError, match="spacing"):
        draw_overlay(image, None, None, path=tmp_path / "x.png", title="", spacing=(1.0, 1.0), labels=TWO)


def test_the_drawn_contour_encloses_the_drawn_structure(tmp_path):
    """On the picture itself: the white box and the line round it have the same bounds, to half the line's width."""
    label = np.zeros((30, 36), dtype=np.int64)
    label[6:20, 9:30] = 1
    path = tmp_path / "box.png"
    draw_overlay(label[None].astype(np.float32), label, None, path=path, title="", spacing=(2.0, 1.0), labels=TWO)
    picture = matplotlib.image.imread(path)[..., :3]
    picture = picture[:, picture.shape[1] // 2 :]  # the marked panel is on the right
    white = (picture == 1.0).all(axis=-1)
    line = np.abs(picture - np.array(to_rgb(REFERENCE_COLOUR))).max(axis=-1) < 0.08
    for axis in (0, 1):
        inside, around = np.flatnonzero(white.any(axis=axis)), np.flatnonzero(line.any(axis=axis))
        assert 0 <= inside[0] - around[0] <= 4
        assert 0 <= around[-1] - inside[-1] <= 4
    height, width = (np.ptp(np.flatnonzero(white.any(axis=axis))) for axis in (1, 0))
    assert height / width == pytest.approx(14 * 2 / 21, rel=0.02)  # pixels twice as high as wide


def test_real_cases_are_drawn(real_data, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    root = real_data / "Dataset004_Hippocampus"
    path = sorted((root / "labelsTr").glob("*.nii.gz"))[0]
    label = np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj).astype(np.int64)
    scan = root / "imagesTr" / path.name.replace(".nii.gz", "_0000.nii.gz")
    image = np.asarray(nibabel.as_closest_canonical(nibabel.load(scan)).dataobj).astype(np.float32)[None]
    draw_overlay(image, label, label, path=tmp_path / "h.png", title=path.name, spacing=(1.0,) * 3, labels=THREE)
    assert _share(tmp_path / "h.png", PREDICTION_COLOUR) > 5e-4

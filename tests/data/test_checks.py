"""A good data set passes; each seeded fault is found, named by case and file, all in one pass."""

import gzip
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from segkit.data.checks import check_cases, raise_if_errors
from segkit.data.layouts import discover
from segkit.data.sample import sample_root
from segkit.errors import DataError
from segkit.types import Labels

SHAPE = (6, 7, 8)
RNG = np.random.default_rng(0)


def _save(path, array, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)


def _image():
    return RNG.normal(100, 20, SHAPE).astype(np.float32)


def _label(value=1):
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[2:4, 2:4, 2:4] = value
    return label


@pytest.fixture
def root(tmp_path):
    """Eight good cases of one class, each person known."""
    for k in range(8):
        _save(tmp_path / f"images/c{k}.nii.gz", _image())
        _save(tmp_path / f"labels/c{k}.nii.gz", _label())
    (tmp_path / "groups.csv").write_text("case,group\n" + "".join(f"c{k},p{k}\n" for k in range(12)))
    (tmp_path / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "T1"}, "labels": {"background": 0, "x": 1}})
    )
    return tmp_path


LABELS = Labels(("background", "x"), (0, 1))


def _check(root, labels=LABELS, *, workers=0):
    dataset = discover(root)
    return check_cases(dataset.cases, labels, dataset=dataset, workers=workers)


def test_a_good_data_set_has_no_findings(root):
    assert _check(root) == []


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def _nan(root):
    array = _image()
    array[0, 0, 0] = np.nan
    _save(root / "images/c3.nii.gz", array)


def _shifted(root):
    affine = np.eye(4)
    affine[2, 3] = 3
    _save(root / "labels/c3.nii.gz", _label(), affine)


def _interpolated(root):
    label = _label().astype(np.float32)
    label[1, 2:4, 2:4] = 0.4
    _save(root / "labels/c3.nii.gz", label)


FAULTS = {
    "no label": (lambda r: (r / "labels/c3.nii.gz").unlink(), "error", "the image has no label", "images/c3.nii.gz"),
    "truncated": (
        lambda r: _truncate(r / "images/c3.nii.gz"),
        "error",
        "the gzip ends early",
        "images/c3.nii.gz",
    ),
    "text": (
        lambda r: (r / "labels/c3.nii.gz").write_bytes(gzip.compress(b"no image at all " * 50)),
        "error",
        "not a NIfTI file",
        "labels/c3.nii.gz",
    ),
    "NaN": (_nan, "error", "the image holds NaN or Inf", "images/c3.nii.gz"),
    "shape": (
        lambda r: _save(r / "labels/c3.nii.gz", _label()[:-1]),
        "error",
        "image and label do not lie on one grid",
        "labels/c3.nii.gz",
    ),
    "origin": (_shifted, "error", "image and label do not lie on one grid", "labels/c3.nii.gz"),
    "interpolated": (_interpolated, "error", "the label holds values that are no integers", "labels/c3.nii.gz"),
    "undeclared": (
        lambda r: _save(r / "labels/c3.nii.gz", _label(3)),
        "error",
        "the label holds a value that is not declared",
        "labels/c3.nii.gz",
    ),
    "channels": (
        lambda r: _save(r / "images/c3.nii.gz", np.stack([_image()] * 2, axis=-1)),
        "error",
        "the number of channels differs",
        "images/c3.nii.gz",
    ),
    "dimensions": (
        lambda r: (
            _save(r / "images/c3.nii.gz", _image()[..., :1]),
            _save(r / "labels/c3.nii.gz", _label()[..., 2:3]),
        ),
        "error",
        "2D and 3D images are mixed",
        "images/c3.nii.gz",
    ),
    "constant": (
        lambda r: _save(r / "images/c3.nii.gz", np.full(SHAPE, 5, np.int16)),
        "warning",
        "the image is constant",
        "images/c3.nii.gz",
    ),
    "twin": (
        lambda r: (r / "images/c3.nii.gz").write_bytes((r / "images/c1.nii.gz").read_bytes()),
        "warning",
        "two cases have the same image",
        "images/c3.nii.gz",
    ),
    "healthy": (
        lambda r: _save(r / "labels/c3.nii.gz", np.zeros(SHAPE, np.uint8)),
        "note",
        "no foreground in this case",
        "",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_seeded_fault_is_found_and_nothing_else(root, name):
    seed, level, what, file = FAULTS[name]
    seed(root)
    (finding,) = _check(root)
    assert (finding.level, finding.case, finding.what) == (level, "c3", what)
    assert finding.file == (str(root / file) if file else "")
    assert finding.why
    if level == "error":
        with pytest.raises(DataError, match=what):
            raise_if_errors([finding])


def test_all_faults_are_found_in_one_pass(root):
    (root / "labels/c0.nii.gz").unlink()
    _truncate(root / "images/c1.nii.gz")
    _save(root / "labels/c2.nii.gz", _label(3))
    _nan(root)
    _save(root / "labels/c4.nii.gz", _label()[1:])
    (root / "labels/z.nii.gz").touch()
    (root / "images/notes.txt").touch()
    findings = _check(root)
    assert {f.case for f in findings if f.level == "error"} == {"c0", "c1", "c2", "c3", "c4"}
    assert {Path(f.file).name for f in findings if not f.case} == {"z.nii.gz", "notes.txt"}
    assert _check(root, workers=2) == findings  # by processes: the same, in the same order


def test_no_foreground_anywhere_is_an_error(root):
    for k in range(8):
        _save(root / f"labels/c{k}.nii.gz", np.zeros(SHAPE, np.uint8))
    for labels in (LABELS, None):
        assert [f.what for f in _check(root, labels) if f.level == "error"] == ["no foreground in any case"]


def test_ids_that_are_there_twice_or_differ_in_case(root):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(root / "images/c3.png")
    if not os.path.exists(root / "IMAGES"):  # a drive that knows upper and lower case
        _save(root / "images/C5.nii.gz", _image())
        _save(root / "labels/C5.nii.gz", _label())
    (root / "groups.csv").unlink()
    found = {(finding.level, finding.what) for finding in _check(root)}
    assert ("error", "two images have one case id") in found
    assert ("warning", "two case ids differ only in upper and lower case") in found


def test_a_fourth_axis_needs_a_name(root):
    for k in range(8):
        _save(root / f"images/c{k}.nii.gz", np.stack([_image()] * 2, axis=-1))
    (root / "dataset.json").unlink()
    assert [finding.what for finding in _check(root)] == ["a fourth axis that nobody declared"]
    (root / "dataset.json").write_text(json.dumps({"channel_names": {"0": "T1", "1": "T2"}}))
    assert _check(root) == []


def test_a_class_that_never_occurs_and_sided_names(root):
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "left": 1, "right": 2}}))
    labels = Labels(("background", "left", "right"), (0, 1, 2))
    found = {finding.what: finding for finding in _check(root, labels)}
    assert found["class 'right' occurs in 0 of 8 cases"].level == "warning"
    assert "left, right" in found["class names look like left and right"].why


def test_no_case_at_all():
    assert [finding.what for finding in check_cases([])] == ["there is no case"]


def test_the_sample_data_has_no_fault():
    for name in ("hippocampus", "nuclei"):
        dataset = discover(sample_root(name))
        findings = check_cases(dataset.cases, dataset=dataset)
        assert [finding for finding in findings if finding.level != "note"] == []


def _extra(name):
    folder = os.environ.get("SEGKIT_DATA")
    if not folder or not (Path(folder) / name).is_dir():
        pytest.skip(f"SEGKIT_DATA names no folder that holds {name}")
    return Path(folder) / name


def test_sides_of_one_person_are_found_in_the_whole_hippocampus_data(tmp_path):
    source = _extra("Dataset004_Hippocampus")
    for name in ("imagesTr", "labelsTr", "dataset.json"):
        (tmp_path / name).symlink_to(source / name)
    warnings = [finding for finding in _check(tmp_path, None) if finding.level == "warning"]
    assert [finding.what for finding in warnings] == ["neighbouring cases look like two of one person"]
    assert "73 of 73 pairs" in warnings[0].why


@pytest.mark.parametrize("name", ["Dataset004_Hippocampus", "Dataset007_MSLesions", "nuclei", "nuclei_rgb"])
def test_the_other_data_has_no_fault(name):
    assert [finding for finding in _check(_extra(name), None) if finding.level != "note"] == []


def test_classes_that_were_not_annotated_are_told(root):
    """Two classes; the second one is annotated in six cases only, and drawn in one that is said to lack it."""
    two = Labels(("background", "x", "y"), (0, 1, 2))
    for k in range(6):
        label = _label()
        label[4, 4, 4] = 2
        _save(root / f"labels/c{k}.nii.gz", label)
    declared = json.loads((root / "dataset.json").read_text())
    declared["labels"]["y"] = 2
    declared["annotated"] = {"c5": ["x"], "c6": ["x"], "c7": ["x"], "c99": ["y"]}
    (root / "dataset.json").write_text(json.dumps(declared))
    stranger, drawn, lacking = _check(root, two)
    assert (stranger.level, stranger.what) == ("warning", "annotated classes are declared for cases that are not there")
    assert "1 cases, such as c99" in stranger.why
    assert (drawn.level, drawn.case) == ("error", "c5")
    assert "it holds y; annotated are x" in drawn.why
    assert (lacking.level, lacking.what) == ("note", "class 'y' is not annotated in 3 of 8 cases")

import builtins
import json

import pytest

from segkit.data.layouts import discover, image_cases
from segkit.errors import DataError


def _touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _declare(root, **entries):
    (root / "dataset.json").write_text(json.dumps(entries))


def _ids(dataset):
    return [case.case_id for case in dataset.cases]


def test_nnunet_raw(tmp_path):
    _touch(tmp_path, *(f"imagesTr/{i}_000{k}.nii.gz" for i in "ab" for k in (0, 1)), "labelsTr/a.nii.gz")
    _touch(tmp_path, "labelsTr/b.nii.gz", "imagesTs/c_0000.nii.gz", "imagesTr/notes.txt")
    _declare(
        tmp_path,
        channel_names={"1": "FLAIR", "0": "T1"},
        labels={"background": 0, "lesion": 1},
        file_ending=".nii.gz",
        name="MS",
    )
    dataset = discover(tmp_path)
    assert (dataset.name, dataset.layout, dataset.channels) == ("MS", "nnunet", ("T1", "FLAIR"))
    assert _ids(dataset) == ["a", "b"]
    assert [path.name for path in dataset.cases[0].images] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert dataset.cases[1].label == tmp_path / "labelsTr/b.nii.gz"
    assert dataset.declared_labels == {"background": 0, "lesion": 1}
    assert [path.name for path in dataset.ignored] == ["notes.txt"]
    assert dataset.dimensions is None


def test_the_form_of_the_decathlon(tmp_path):
    _touch(tmp_path, "imagesTr/BRATS_001.nii.gz", "imagesTr/._BRATS_001.nii.gz", "labelsTr/BRATS_001.nii.gz")
    _declare(tmp_path, modality={"0": "FLAIR", "1": "T1w"}, labels={"0": "background", "1": "edema"})
    dataset = discover(tmp_path)
    assert _ids(dataset) == ["BRATS_001"]
    assert dataset.channels == ("FLAIR", "T1w")
    assert dataset.declared_labels == {"background": 0, "edema": 1}


def test_cases_listed_in_dataset_json(tmp_path):
    _touch(tmp_path, "imagesTr/x.nii.gz")
    _declare(tmp_path, dataset={"k": {"images": ["far/x.nii.gz"], "label": "labelsTr/y.nii.gz"}})
    assert discover(tmp_path).cases[0].label == tmp_path / "labelsTr/y.nii.gz"
    _declare(tmp_path, dataset={"k": {"images": []}})
    with pytest.raises(DataError, match="list of cases"):
        discover(tmp_path)


@pytest.mark.parametrize(("images", "labels"), [("images", "labels"), ("images", "masks"), ("img", "mask")])
def test_paired_folders(tmp_path, images, labels):
    _touch(tmp_path, f"{images}/a.jpg", f"{images}/b.png", f"{images}/c.png")
    _touch(tmp_path, f"{labels}/a.png", f"{labels}/b_mask.png", f"{labels}/z.png")
    dataset = discover(tmp_path)
    assert dataset.layout == "paired"
    assert _ids(dataset) == ["a", "b", "c"]
    assert [case.label and case.label.name for case in dataset.cases] == ["a.png", "b_mask.png", None]
    assert [path.name for path in dataset.orphans] == ["z.png"]
    assert dataset.channels == ()
    assert dataset.dimensions == 2


def test_numbers_of_cases_are_not_taken_for_channels(tmp_path):
    _touch(tmp_path, "images/scan_0001.png", "images/scan_0002.png", "labels/scan_0001.png")
    assert _ids(discover(tmp_path)) == ["scan_0001", "scan_0002"]
    _touch(tmp_path, "images/p_0000.png", "images/p_0001.png", "labels/p.png")
    dataset = discover(tmp_path)
    assert _ids(dataset) == ["p", "scan_0001", "scan_0002"]
    assert dataset.channels == ("channel_0", "channel_1")


def test_one_id_in_two_file_types_stays_visible(tmp_path):
    _touch(tmp_path, "images/a.png", "images/a.tif", "labels/a.png")
    assert _ids(discover(tmp_path)) == ["a", "a"]


def test_no_image_is_opened(tmp_path, monkeypatch):
    _touch(tmp_path, "images/a.png", "labels/a.png")
    _declare(tmp_path, labels={"background": 0, "x": 1})
    opened = []
    real = builtins.open

    def spy(file, *args, **kwargs):
        opened.append(str(file))
        return real(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", spy)
    monkeypatch.setattr("io.open", spy)
    discover(tmp_path)
    assert any(name.endswith("dataset.json") for name in opened)  # the spy sees what is opened
    assert not [name for name in opened if name.endswith(".png")]


def test_pairs_of_files_are_one_image(tmp_path):
    _touch(tmp_path, "images/a.hdr", "images/a.img", "images/b.mhd", "images/b.zraw")
    dataset = discover(tmp_path)
    assert _ids(dataset) == ["a", "b"]
    assert dataset.ignored == ()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "empty folder"),
        (lambda root: _touch(root, "scans/a.png"), "not recognised"),
        (lambda root: (root / "images").mkdir(), "no image"),
        (lambda root: _touch(root, "images/a.dcm"), "no image"),
        (lambda root: (_touch(root, "images/a.png"), (root / "dataset.json").write_text("{")), "no JSON"),
        (lambda root: (_touch(root, "images/a.png"), _declare(root, labels={"x": [1, 2]})), "labels cannot"),
        (lambda root: (_touch(root, "images/a.png"), _declare(root, channel_names={"T1": "0"})), "channel names"),
    ],
)
def test_faults_are_data_errors(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        discover(tmp_path)
    assert str(tmp_path) in caught.value.where


def test_a_root_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="not there"):
        discover(tmp_path / "gone")


def test_images_to_predict(tmp_path):
    _touch(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz")
    cases = image_cases(tmp_path)
    assert [(case.case_id, len(case.images), case.label) for case in cases] == [("a", 2, None), ("b", 1, None)]
    assert image_cases(tmp_path / "b_0000.nii.gz")[0].images == (tmp_path / "b_0000.nii.gz",)
    with pytest.raises(DataError, match="no image to predict"):
        image_cases(tmp_path / "gone")

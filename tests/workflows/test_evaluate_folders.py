"""Any two folders of masks, by the verb's own workflow."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

import segkit
from segkit.errors import DataError, UsageError
from segkit.evaluation import DetailSettings, detail_case
from segkit.types import Labels
from segkit.workflows.evaluate import run

AFFINE = np.diag([0.5, 1.0, 2.0, 1.0])
TURNED = np.array([[0.0, -1.0, 0.0, 3.0], [0.0, 0.0, 2.0, 0.0], [0.5, 0.0, 0.0, 7.0], [0.0, 0.0, 0.0, 1.0]])


def write(path, mask, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), path)


def masks(seed, classes=3):
    rng = np.random.default_rng(seed)
    mask = np.zeros((14, 16, 12), dtype=np.int16)
    for value in range(1, classes):
        start = rng.integers(1, 6, 3)
        mask[tuple(slice(s, s + 5) for s in start)] = value
    return mask


@pytest.fixture
def folders(tmp_path):
    """Eight cases; the prediction of each is its reference, moved by a voxel of 0.5 mm."""
    for k in range(8):
        write(tmp_path / "labels" / f"c{k}.nii.gz", masks(k))
        write(tmp_path / "masks" / f"c{k}.nii.gz", np.roll(masks(k), 1, axis=0))
    return tmp_path


def score(tmp_path, **keys):
    return run({"predictions": str(tmp_path / "masks"), "reference": str(tmp_path / "labels")} | keys)


def table(tmp_path):
    with (tmp_path / "masks" / "evaluation" / "per_case.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_numbers_are_those_of_the_arrays(folders, capsys):
    summary = score(folders)
    assert [one.name for one in summary.classes] == ["class_1", "class_2"]
    (first, second, *_) = table(folders)
    labels = Labels(("background", "class_1", "class_2"), (0, 1, 2))
    expected = detail_case(
        np.roll(masks(0), 1, axis=0),
        masks(0),
        case_id="c0",
        group="c0",
        spacing=(0.5, 1.0, 2.0),
        labels=labels,
        settings=DetailSettings(),
    )
    for line, detail in zip((first, second), expected, strict=True):
        assert float(line["hd95"]) == detail.surface.hd
        assert float(line["nsd"]) == detail.surface.nsd
        assert float(line["volume_similarity"]) == detail.volume_similarity
        assert int(line["lesion_tp"]) == detail.detection.tp
    stored = json.loads((folders / "masks" / "evaluation" / "summary.json").read_text())
    assert stored["label"] == "masks of a folder"
    assert stored["surface"]["class_1"]["hd95"]["n"] == 8
    assert stored["unit"] == "mm"
    out = capsys.readouterr().out
    assert "HD95 mm" in out
    assert "8 cases" in out


def test_nnunet_finds_its_own_form(folders):
    score(folders)
    record = json.loads((folders / "masks" / "evaluation" / "nnunet" / "summary.json").read_text())
    case = record["metric_per_case"][0]
    truth, guess = masks(0) == 2, np.roll(masks(0), 1, axis=0) == 2
    assert case["metrics"]["2"]["Dice"] == 2 * (truth & guess).sum() / (truth.sum() + guess.sum())
    assert case["metrics"]["2"]["TN"] == (~truth & ~guess).sum()
    assert case["reference_file"] == str(folders / "labels" / "c0.nii.gz")
    assert case["prediction_file"] == "../../c0.nii.gz"


def test_axes_of_the_file_carry_their_own_spacing(folders):
    """The same voxels in a file whose axes are exchanged and turned round: all distances in mm stay."""
    straight = score(folders)
    before = [(line["hd95"], line["assd"], line["nsd"]) for line in table(folders)]
    for k in range(8):
        for part, mask in (("labels", masks(k)), ("masks", np.roll(masks(k), 1, axis=0))):
            write(folders / part / f"c{k}.nii.gz", mask, TURNED)
    assert score(folders).score == straight.score
    after = [(line["hd95"], line["assd"], line["nsd"]) for line in table(folders)]
    assert np.allclose(np.array(before, float), np.array(after, float), atol=1e-5)


def test_names_from_dataset_json_and_people_from_groups_csv(folders):
    (folders / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": 1, "tumour": 2}}))
    (folders / "labels" / "groups.csv").write_text("case,group\n" + "".join(f"c{k},p{k // 2}\n" for k in range(8)))
    summary = score(folders)
    assert [one.name for one in summary.classes] == ["liver", "tumour"]
    assert (summary.n_cases, summary.n_groups) == (8, 4)
    score(folders, surface={"tolerances": {"liver": 2.0}})
    with pytest.raises(UsageError, match="no class kidney"):
        score(folders, surface={"tolerances": {"kidney": 2.0}})


def test_a_case_that_was_not_predicted_is_an_error(folders):
    (folders / "masks" / "c3.nii.gz").unlink()
    with pytest.raises(DataError, match="1 of 8 are missing, such as c3"):
        score(folders)
    assert not (folders / "masks" / "evaluation").exists()


def test_a_prediction_too_many_is_named(folders, capsys):
    write(folders / "masks" / "z.nii.gz", masks(0))
    assert score(folders).n_cases == 8
    assert "1 predictions have no reference and are passed over, such as z" in capsys.readouterr().out


def test_another_grid_is_refused(folders):
    shifted = AFFINE.copy()
    shifted[0, 3] = 5.0
    write(folders / "masks" / "c1.nii.gz", masks(1), shifted)
    with pytest.raises(DataError, match="do not lie on one grid"):
        score(folders)


def test_an_unknown_value_is_refused(folders):
    write(folders / "masks" / "c1.nii.gz", masks(1) * 3)
    with pytest.raises(DataError, match="not declared"):
        score(folders)


def test_what_is_asked_for_must_be_there(folders, tmp_path):
    with pytest.raises(UsageError, match="a run, or a folder"):
        run({})
    with pytest.raises(UsageError, match="a run, or a folder"):
        run({"run": "r", "predictions": "p"})
    with pytest.raises(UsageError, match="nothing to score against"):
        run({"predictions": str(folders / "masks")})
    with pytest.raises(UsageError, match="no such folder"):
        run({"predictions": str(tmp_path / "nowhere"), "reference": str(folders / "labels")})
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no reference mask"):
        run({"predictions": str(folders / "masks"), "reference": str(tmp_path / "empty")})


def test_pictures_of_instances(tmp_path):
    """Two objects that touch: their ids keep them apart on both sides."""
    for k in range(3):
        mask = np.zeros((20, 24), dtype=np.uint8)
        for count in range(k + 2):
            mask[4 : 12 + k, 2 + 4 * count : 6 + 4 * count] = count + 1
        for part in ("labels", "masks"):
            (tmp_path / part).mkdir(exist_ok=True)
            Image.fromarray(mask).save(tmp_path / part / f"c{k}.png")
    assert score(tmp_path).unit == "pixel"
    lines = table(tmp_path)
    assert [int(line["lesion_tp"]) for line in lines] == [2, 3, 4]
    assert {float(line["panoptic_quality"]) for line in lines} == {1.0}
    stored = json.loads((tmp_path / "masks" / "evaluation" / "summary.json").read_text())
    assert stored["unit"] == "pixel"
    assert stored["lesions"]["object"]["ceiling"]["f1"]["mean"] < 1.0


def test_voxels_alone_on_request(folders):
    score(folders, detail=False)
    assert "hd95" not in table(folders)[0]
    assert "surface" not in json.loads((folders / "masks" / "evaluation" / "summary.json").read_text())


def test_distances_of_two_makers_are_compared_and_other_tolerances_refused(folders, monkeypatch):
    """The tables go to `compare` as they are: its metrics are our columns, and its rules are what we measured by."""
    monkeypatch.chdir(folders)
    for k in range(8):
        write(folders / "better" / f"c{k}.nii.gz", masks(k))

    def tables(part, tolerance):
        score(folders, predictions=str(folders / part), surface={"tolerance_mm": tolerance})
        return str(folders / part / "evaluation")

    def compare(tolerance):
        sides = f"reference={tables('masks', 0.25)}", f"candidate={tables('better', tolerance)}"
        return segkit.compare([*sides, "metrics=[hd95,nsd,lesion_f1]"])

    found = compare(0.25)
    by_row = {(row.metric, row.class_name): row for row in found.rows}
    with (folders / "masks" / "evaluation" / "per_case.csv").open(newline="") as file:
        before = [float(line["hd95"]) for line in csv.DictReader(file) if line["class"] == "class_1"]
    distance, agreement = (by_row[metric, "class_1"].difference for metric in ("hd95", "nsd"))
    assert (distance.reference, distance.candidate) == (pytest.approx(np.mean(before)), 0.0)
    assert agreement.candidate == 1.0 > agreement.reference
    with pytest.raises(DataError, match="different rules"):
        compare(2.0)


def test_a_class_that_was_not_annotated_in_a_case_is_not_applicable_there(folders, capsys):
    declared = {"labels": {"background": 0, "liver": 1, "tumour": 2}, "annotated": {"c1": ["liver"], "c3": ["liver"]}}
    (folders / "dataset.json").write_text(json.dumps(declared))
    _, tumour = score(folders).classes
    assert (tumour.not_annotated_cases, tumour.metrics["dice"].n) == (2, 6)
    lines = {(row["case_id"], row["class"]): row for row in table(folders)}
    assert lines["c1", "tumour"]["n_reference"] == lines["c1", "tumour"]["hd95"] == ""
    assert lines["c1", "liver"]["dice"] != ""
    stored = json.loads((folders / "masks" / "evaluation" / "summary.json").read_text())
    assert stored["surface"]["tumour"]["hd95"]["n"] == stored["lesions"]["tumour"]["f1"]["n"] == 6
    assert "tumour was not annotated in 2 of 8 cases" in capsys.readouterr().out

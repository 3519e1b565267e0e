import csv
import json
import shutil

import nibabel
import numpy as np
import pytest

from segkit.configuration.entry import main
from segkit.errors import DataError, UsageError
from segkit.runs.calibration import temperature_of
from segkit.workflows.calibrate import run
from segkit.workflows.loading import load, models_of

TRAIN, TUNING, TEST = range(4), range(4, 16), range(16, 28)


def config(path, **keys):
    paths = path if isinstance(path, list) else str(path)
    defaults = {"fit": "tuning", "test": "test", "members": "all", "margin": 5.0}
    return {"run": paths, "trainer": {"accelerator": "cpu"}} | defaults | keys


def names(numbers):
    return [f"phantom_{i:03d}" for i in numbers]


@pytest.fixture
def data(nnunet_raw):
    """Phantoms of 14 people whose labels were drawn by a shaky hand: moved by a voxel, another way in each case."""
    root = nnunet_raw(cases=28, people=14, num_classes=2, shape=(14, 16, 12), spacing=(1.0, 1.0, 2.0))
    for i, path in enumerate(sorted((root / "labelsTr").glob("*.nii.gz"))):
        image = nibabel.load(path)
        moved = np.roll(np.asarray(image.dataobj), 1 if i % 3 else -1, axis=i % 2)
        nibabel.save(nibabel.Nifti1Image(moved, image.affine), path)
    return root


@pytest.fixture
def trained(data, threshold_run, tmp_path):
    """Factory: a run of these roles whose network is a threshold of the intensity."""

    def make(name="run", *, train=TRAIN, tuning=TUNING, test=TEST, threshold=1.0):
        split = tmp_path / f"{name}.json"
        split.write_text(json.dumps({"train": names(train), "tuning": names(tuning), "test": names(test)}))
        return threshold_run(data, threshold, f"data.split.file={split}", name=name)

    return make


def test_a_run_is_calibrated_and_its_masks_stay(trained, capsys):
    path = trained()
    before = load(path, accelerator="cpu")
    calibration = run(config(path))
    stored = json.loads((path / "calibration.json").read_text())
    assert stored["temperature"] == calibration.temperature > 0
    assert temperature_of(path, models_of([before])) == calibration.temperature
    with pytest.raises(UsageError, match="other models"):
        temperature_of(path, models_of([load(path, accelerator="cpu", step=0.25)]))
    assert calibration.fit.nll_after < calibration.fit.nll_before
    assert [case["case_id"] for case in stored["fitting_cases"]] == names(TUNING)
    assert [case["case_id"] for case in stored["test_cases"]] == names(TEST)
    assert (stored["fit"]["n_cases"], stored["fit"]["n_groups"]) == (12, 6)
    assert "selected on them" in stored["fit"]["cases_are"]
    ball = calibration.test.classes[0]
    assert ball.brier.after.mean < ball.brier.before.mean
    assert (ball.ece.after.n, ball.ece.after.n_groups) == (12, 6)
    with (path / "calibration_per_case.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["class"] == "ball_a"]
    assert np.mean([float(row["ece_after"]) for row in rows]) == pytest.approx(ball.ece.after.mean)
    out = capsys.readouterr().out
    assert f"temperature {calibration.temperature:.3f} [" in out
    assert "Spearman" in out
    assert run(config(path)).temperature == calibration.temperature
    assert run(config(path, margin=0.0)).temperature != calibration.temperature


def test_fewer_than_ten_cases_end_with_65(trained, capsys):
    path = trained(tuning=range(4, 12))
    assert main("calibrate", [f"run={path}", "trainer.accelerator=cpu"]) == 65
    error = capsys.readouterr().err
    assert "10 cases or more" in error
    assert "there are 8" in error
    assert not (path / "calibration.json").exists()


def test_a_training_image_under_another_name_is_named_with_its_model(trained, data):
    path = trained()
    shutil.copy(data / "imagesTr/phantom_000_0000.nii.gz", data / "imagesTr/phantom_020_0000.nii.gz")
    with pytest.raises(DataError, match="model run, case phantom_020"):
        run(config(path))
    assert not (path / "calibration.json").exists()


def test_an_ensemble_of_folds(trained, tmp_path, capsys):
    """People 0 to 7 in two folds, the others in none of them."""
    first = trained("first", train=range(8), tuning=range(8, 14), test=(14, 15), threshold=0.8)
    second = trained("second", train=range(8, 16), tuning=range(2, 8), test=(0, 1), threshold=1.3)
    both, output = [str(first), str(second)], tmp_path / "both"
    with pytest.raises(UsageError, match="output"):
        run(config(both))
    words = [f"run=[{first},{second}]", f"output={output}", "trainer.accelerator=cpu", "test=unassigned"]
    assert main("calibrate", words) == 65
    error = capsys.readouterr().err
    assert "model first, case phantom_002" in error
    assert "members=out_of_fold" in error
    assert not (output / "calibration.json").exists()
    assert main("calibrate", [*words, "members=out_of_fold"]) == 0
    stored = json.loads((output / "calibration.json").read_text())
    assert [one["run"] for one in stored["models"]] == ["first", "second"]
    by = {case["case_id"]: tuple(case["models"]) for case in stored["fitting_cases"]}
    assert by == dict.fromkeys(names(range(8)), ("second",)) | dict.fromkeys(names(range(8, 16)), ("first",))
    assert [case["case_id"] for case in stored["test_cases"]] == names(range(16, 28))
    assert stored["fit"]["models_a_case"] == "1"
    assert "predicted by 1 of 2 models" in capsys.readouterr().out
    members = [load(one, accelerator="cpu") for one in both]
    assert temperature_of(output, models_of(members)) == stored["temperature"]
    with pytest.raises(UsageError, match="other models"):
        temperature_of(output, models_of(members[:1]))


def test_seeds_of_one_split_are_averaged_on_the_way(trained, tmp_path):
    """Two thresholds whose mean is a third: the same temperature, by the ensemble and by the one."""
    low, high, middle = (
        trained(name, threshold=t, test=range(16, 20)) for name, t in (("low", 0.6), ("high", 1.4), ("middle", 1.0))
    )
    both = run(config([str(low), str(high)], output=str(tmp_path / "both")))
    single = run(config(middle))
    assert both.temperature == pytest.approx(single.temperature, rel=1e-4)
    assert both.test.nll.after.mean == pytest.approx(single.test.nll.after.mean, rel=1e-4)

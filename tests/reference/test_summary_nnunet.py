"""nnunet/summary.json beside what nnU-Net (2.8.1) writes of the same folders, where it is installed."""

import json

import nibabel
import numpy as np
import pytest

from segkit.workflows.evaluate import run

evaluating = pytest.importorskip("nnunetv2.evaluation.evaluate_predictions", reason="nnU-Net is not installed")


def save(path, mask):
    path.parent.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), np.diag([0.5, 1.0, 2.0, 1.0])), path)


@pytest.fixture
def folders(tmp_path):
    """Four cases: both classes; one of them invented; one of them nowhere; one of them missed."""
    rng = np.random.default_rng(0)
    for name in "abcd":
        reference, prediction = rng.integers(0, 3, (2, 9, 8, 7))
        if name in "bc":
            reference[reference == 2] = 0
        if name in "cd":
            prediction[prediction == 2] = 0
        save(tmp_path / "reference" / f"{name}.nii.gz", reference)
        save(tmp_path / "prediction" / f"{name}.nii.gz", prediction)
    labels = {"background": 0, "liver": 1, "tumour": 2}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    return tmp_path


def test_every_number_is_nnunets(folders, tmp_path):
    reader = evaluating.SimpleITKIO()
    reference, prediction = folders / "reference", folders / "prediction"
    theirs = evaluating.compute_metrics_on_folder(
        str(reference), str(prediction), str(tmp_path / "theirs.json"), reader, ".nii.gz", [1, 2], None, 1
    )
    run({"predictions": str(prediction), "reference": str(reference)})
    ours = json.loads((prediction / "evaluation" / "nnunet" / "summary.json").read_text())
    assert set(ours) == {"foreground_mean", "mean", "metric_per_case"}
    assert ours["foreground_mean"] == pytest.approx(theirs["foreground_mean"], nan_ok=True)
    for label in (1, 2):
        assert ours["mean"][str(label)] == pytest.approx(theirs["mean"][label], nan_ok=True)
        for mine, other in zip(ours["metric_per_case"], theirs["metric_per_case"], strict=True):
            assert mine["reference_file"] == other["reference_file"]
            assert mine["metrics"][str(label)] == pytest.approx(other["metrics"][label], nan_ok=True)

"""From cases that a run was not trained on to a file, and from the file to masks."""

import json

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from segkit.data.layouts import discover
from segkit.data.store import Store
from segkit.errors import DataError
from segkit.evaluation import evaluate_case
from segkit.evaluation.prediction_regions import regions_of_case
from segkit.inference.postprocessing import ClassRule, PostProcessing
from segkit.runs.postprocessing import read_postprocessing
from segkit.workflows.fitting_postprocessing import fit_postprocessing
from segkit.workflows.loading import load, models_of
from segkit.workflows.predict import run

TUNING = "tuning cases: the checkpoint was selected on them"


def names(numbers):
    return [f"phantom_{i:03d}" for i in numbers]


@pytest.fixture
def trained(nnunet_raw, threshold_run, with_island, tmp_path):
    """A run of 12 tuning cases of 6 people, in whose images something else is as bright as the structure."""
    root = nnunet_raw(cases=20, people=10, num_classes=2, shape=(14, 16, 12), spacing=(1.0, 1.0, 2.0))
    for path in (root / "imagesTr").iterdir():
        with_island(path)
    split = tmp_path / "split.json"
    roles = {"train": names(range(4)), "tuning": names(range(4, 16)), "test": names(range(16, 20))}
    split.write_text(json.dumps(roles))
    return load(threshold_run(root, 1.0, f"data.split.file={split}"), accelerator="cpu")


def evaluated(trained, numbers):
    """Regions of each case, made while it is evaluated: what `evaluate` hands over."""
    store, data = Store(trained.prepared_cases), trained.config["data"]
    for case in discover(data["root"], layout=data["layout"], groups=data["groups"]).cases:
        if case.case_id in names(numbers):
            prepared = store.get(case, trained.plan)
            prediction = evaluate_case(trained.predictor, prepared, trained.settings).prediction
            yield regions_of_case(prediction, prepared, num_classes=trained.plan.num_classes)


def test_fitted_stored_and_applied_by_predict(trained, tmp_path, capsys):
    path, models = trained.directory.path, models_of([trained])
    cases = evaluated(trained, range(4, 16))
    fit = fit_postprocessing(cases, trained.plan.labels, models=models, cases_are=TUNING, output=path)
    assert fit.rules == PostProcessing((ClassRule("ball_a", keep="largest"),))
    out = capsys.readouterr().out
    assert f"post-processing fitted on 12 cases of 6 groups; {TUNING}" in out
    assert "gain (optimistic)" in out
    assert "kept: largest component kept" in out
    found = read_postprocessing(path)
    assert found.rules == fit.rules
    found.require_models(models)
    stored = json.loads((path / "postprocessing.json").read_text())
    assert [case["case_id"] for case in stored["fitting_cases"]] == names(range(4, 16))
    assert stored["fit"]["cases_are"] == TUNING
    gain = stored["fit"]["classes"]["ball_a"]["gain_optimistic"]
    assert gain["n_groups"] == 6
    assert 0 < gain["interval"][0] < gain["mean"]
    # None of the test cases chose the rules, whatever they are called.
    hashes = trained.roles.content_hashes
    assert found.fitted_on({"other name": hashes["phantom_005"]}) == ["other name"]
    assert found.fitted_on({case: "unknown content" for case in names(range(16, 20))}) == []
    root = trained.config["data"]["root"]
    config = {"run": str(path), "input": f"{root}/imagesTr", "output": str(tmp_path / "masks")}
    masks = run(config | {"trainer": {"accelerator": "cpu"}})
    assert len(masks) == 20
    for mask in masks:
        array = np.asarray(nibabel.load(mask).dataobj)
        assert ndimage.label(array, structure=np.ones((3, 3, 3)))[1] == 1
        assert not array[-2:, -2:, -2:].any()


def test_too_few_cases_write_nothing(trained):
    path = trained.directory.path
    with pytest.raises(DataError, match="10 cases of 6 people"):
        fit_postprocessing(
            evaluated(trained, range(4, 12)),
            trained.plan.labels,
            models=models_of([trained]),
            cases_are=TUNING,
            output=path,
        )
    assert not (path / "postprocessing.json").exists()

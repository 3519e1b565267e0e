import json
import warnings

import pytest

from segkit.runs.directory import RunDirectory

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations within MLflow
    from segkit.tracking.scores import scores_on_test


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path / "run").create()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"score": 1, "mean": 3}', '{"score": "x", "mean": {}, "classes": {}}']
)
def test_hostile_summaries_have_no_scores(run, text):
    folder = run.path / "evaluation" / "test"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(text)
    assert scores_on_test(run) is None


def test_scores_without_those_that_are_undefined(run):
    folder = run.path / "evaluation" / "test"
    folder.mkdir(parents=True)
    summary = {
        "label": "test",
        "score": None,
        "mean": {"dice": {"mean": 0.5}},
        "classes": {},
        "checkpoint": {"epoch": 3},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    assert scores_on_test(run) == (3, {"test/dice": 0.5})

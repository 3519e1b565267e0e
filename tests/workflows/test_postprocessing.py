"""Which rules the masks of a run get, and those of several."""

import json

import pytest

from segkit.errors import UsageError
from segkit.inference.postprocessing import ClassRule, PostProcessing
from segkit.runs.postprocessing import FILE
from segkit.types import Labels
from segkit.workflows.postprocessing import postprocessing_for, stored_path

LABELS = Labels(("background", "organ"), (0, 1))
RULES = PostProcessing((ClassRule("organ", keep="largest"),))


def model(name):
    return {"run": name, "checkpoint": 2, "step": 0.5, "mirror_axes": []}


def write(folder, *names, rules=RULES):
    folder.mkdir(parents=True, exist_ok=True)
    content = {"postprocessing": rules.to_json(), "models": [model(name) for name in names], "fitting_cases": []}
    (folder / FILE).write_text(json.dumps(content))


def found(folder, *names, **keys):
    return postprocessing_for([folder / name for name in names], [model(name) for name in names], LABELS, **keys)


def test_of_one_run_in_its_folder(tmp_path):
    assert found(tmp_path, "a") is None
    write(tmp_path / "a", "a")
    assert found(tmp_path, "a").rules == RULES
    assert found(tmp_path, "a", postprocess="none") is None


def test_of_several_in_the_folder_that_holds_them(tmp_path):
    write(tmp_path / "a", "a")
    assert found(tmp_path, "a", "b") is None  # those of one of them are not those of their mean
    write(tmp_path, "a", "b")
    assert found(tmp_path, "a", "b").rules == RULES
    assert found(tmp_path, "b") is None
    assert stored_path([tmp_path / "x" / "a", tmp_path / "y" / "b"]) is None
    with pytest.raises(UsageError, match="other models"):
        found(tmp_path, "a", "c")


def test_by_a_path_that_must_be_there(tmp_path):
    with pytest.raises(UsageError, match="no post-processing"):
        found(tmp_path, "a", postprocess=str(tmp_path / "elsewhere"))
    write(tmp_path / "elsewhere", "a", "b")
    assert found(tmp_path, "a", "b", postprocess=str(tmp_path / "elsewhere")).rules == RULES
    assert found(tmp_path, "a", "b", postprocess=tmp_path / "elsewhere" / FILE).rules == RULES
    with pytest.raises(UsageError, match="other models"):
        found(tmp_path, "a", postprocess=str(tmp_path / "elsewhere"))


def test_masks_that_are_predicted_otherwise_are_left_as_they_are_and_that_is_said(tmp_path, caplog):
    write(tmp_path, "a", "b")
    assert found(tmp_path, "a", "b", average="probabilities") is None
    assert f"fitted with average=logits, these masks are not ({tmp_path / FILE})" in caplog.text
    caplog.clear()
    mirrored = [model(name) | {"mirror_axes": [0]} for name in "ab"]
    assert postprocessing_for([tmp_path / "a", tmp_path / "b"], mirrored, LABELS) is None
    assert "fitted with mirror=false" in caplog.text
    # Who names the file wants these rules.
    with pytest.raises(UsageError, match="predicted otherwise") as raised:
        postprocessing_for([tmp_path / "a", tmp_path / "b"], mirrored, LABELS, postprocess=tmp_path)
    assert raised.value.mend == "mirror=false; or postprocess=none"
    # Another checkpoint is another model, however it predicts.
    other = [model("a") | {"checkpoint": 7, "mirror_axes": [0]}, model("b")]
    with pytest.raises(UsageError, match="other models"):
        postprocessing_for([tmp_path / "a", tmp_path / "b"], other, LABELS)


def test_rules_of_other_classes_are_refused(tmp_path):
    write(tmp_path / "a", "a", rules=PostProcessing((ClassRule("liver", 3.0),)))
    with pytest.raises(UsageError, match="liver"):
        found(tmp_path, "a")

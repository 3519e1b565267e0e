"""Rules fitted by `evaluate`, and tried by it as a further row beside the plain one."""

import csv
import json

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from segkit.data.layouts import discover
from segkit.errors import DataError, UsageError
from segkit.inference.postprocessing import ClassRule, PostProcessing
from segkit.runs.files import read_json, write_json
from segkit.runs.postprocessing import FILE, read_postprocessing
from segkit.runs.sweep import SweepDirectory
from segkit.workflows.evaluate import run
from segkit.workflows.evaluate_postprocessing import OUT_OF_FOLD, TUNING
from segkit.workflows.loading import load, models_of

LARGEST = PostProcessing((ClassRule("ball_a", keep="largest"),))
THRESHOLD = 1.0


def config(path, **keys):
    runs = [str(one) for one in path] if isinstance(path, list | tuple) else str(path)
    given = {"subset": "test", "overlays": 0, "detail": False, "trainer": {"accelerator": "cpu"}} | keys
    return {"run": runs} | given


def rows(folder):
    with (folder / "per_case.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def counts(folder):
    return {row["case_id"]: tuple(int(row[c]) for c in ("tp", "fp", "fn")) for row in rows(folder)}


def by_hand(root, masks):
    """Counts of what is left of written masks when all but the largest component is taken out of them."""
    found = {}
    for path in sorted(masks.iterdir()):
        mask = np.asarray(nibabel.load(path).dataobj) == 1
        truth = np.asarray(nibabel.load(root / "labelsTr" / path.name).dataobj) == 1
        ids, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
        mask = ids == 1 + np.argmax(np.bincount(ids.reshape(-1))[1:])
        found[path.name.split(".")[0]] = tuple(
            np.count_nonzero(m) for m in (mask & truth, mask & ~truth, ~mask & truth)
        )
    return found


def written(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): path.read_bytes() for path in files if "postprocessed" not in path.parts}


def refused(error, path, **keys):
    with pytest.raises(error) as raised:
        run(config(path, **keys))
    assert raised.value.exit_code == {DataError: 65, UsageError: 2}[error]
    return str(raised.value)


@pytest.fixture
def data(nnunet_raw, with_island):
    """Something in a corner of each image is as bright as the structure."""
    root = nnunet_raw(cases=18, num_classes=2, shape=(14, 16, 12), spacing=(1.0, 1.0, 2.0))
    for path in (root / "imagesTr").iterdir():
        with_island(path)
    return root


@pytest.fixture
def trained(data, threshold_run, tmp_path):
    """A run of 10 tuning and 6 test cases, each of another person."""
    ids = [case.case_id for case in discover(data).cases]
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": ids[:2], "tuning": ids[2:12], "test": ids[12:]}))
    return threshold_run(data, THRESHOLD, f"data.split.file={split}")


@pytest.fixture
def sweep(data, threshold_run):
    """Two folds of sixteen people, two more held out from both."""
    for fold in range(2):
        words = ("data.split.folds=2", f"data.split.fold={fold}", "data.split.held_out=2")
        path = threshold_run(data, THRESHOLD, *words, name=f"cv/{fold}-fold={fold}")
    return path.parent


def test_fitted_on_tuning_cases_and_tried_on_test_cases(data, trained, capsys):
    output = trained / "evaluation" / "test"
    plain = run(config(trained, save_predictions=True))
    before = written(output)
    run(config(trained, subset="tuning", postprocess="fit"))
    assert f"fitted on 10 cases of 10 groups; {TUNING}" in capsys.readouterr().out
    assert "Rules: ball_a: largest component kept." in (trained / "report.html").read_text()
    stored = read_postprocessing(trained)
    assert stored.rules == LARGEST
    models = models_of([load(trained, accelerator="cpu")])
    stored.require_models(models)
    assert stored.settings(models, "logits") == ""
    assert sorted(stored.fitted.values()) == sorted(load(trained, accelerator="cpu").roles.tuning)
    # Fitting measures nothing of its own, and changes no row.
    assert not (trained / "evaluation" / "tuning" / "postprocessed").exists()

    assert run(config(trained, postprocess="stored", save_predictions=True)).score == plain.score
    assert written(output) == before
    folder, expected = output / "postprocessed", by_hand(data, output / "predictions")
    assert counts(folder) == expected != counts(output)
    assert by_hand(data, folder / "predictions") == expected
    summary = read_json(folder / "summary.json")
    assert (summary["variant"], summary["label"], summary["seen_cases"]) == ("postprocessed", "test", [])
    assert summary["postprocessing"] == LARGEST.to_json()
    assert summary["postprocessing_file"] == str(trained / FILE)
    dice = [2 * tp / (2 * tp + fp + fn) for tp, fp, fn in expected.values()]
    gain = np.mean(dice) - np.mean([2 * tp / (2 * tp + fp + fn) for tp, fp, fn in counts(output).values()])
    assert gain > 0
    (compared,) = read_json(folder / "comparison.json")["rows"]
    assert compared["difference"] == pytest.approx(gain, abs=1e-12)
    out = capsys.readouterr().out
    assert f"post-processing: ball_a: largest component kept ({trained / FILE})" in out
    assert f"postprocessed: dice {np.mean(dice):.4f}" in out
    assert f"dice {gain:+.4f} [" in out


def test_beside_the_mirrored_row_by_a_path_and_in_all_measures(data, trained, tmp_path):
    run(config(trained, subset="tuning", postprocess="fit"))
    kept = (trained / FILE).rename(tmp_path / "rules.json")
    keys = {"mirror": True, "detail": True, "save_predictions": True, "surface": {}, "lesion": {}}
    run(config(trained, postprocess=str(kept), **keys))
    output = trained / "evaluation" / "test"
    # Rules are for the plain masks: the mirrored ones, of a threshold the same, keep their islands.
    assert counts(output / "mirrored") == counts(output)
    assert counts(output / "postprocessed") == by_hand(data, output / "predictions") != counts(output)
    assert read_json(output / "postprocessed" / "summary.json")["postprocessing_file"] == str(kept)
    assert {row["lesion_fp"] for row in rows(output / "postprocessed")} == {"0"}
    assert {row["lesion_fp"] for row in rows(output)} == {"1"}
    # What was compared with another plain evaluation goes with it.
    run(config(trained))
    assert not (output / "postprocessed" / "comparison.json").exists()


def test_what_cannot_be_fitted_or_tried(data, trained, tmp_path):
    line = f"python -m segkit.evaluate run={trained} subset=tuning postprocess=fit"
    assert line in refused(UsageError, trained, postprocess="fit")
    assert line in refused(UsageError, trained, postprocess="stored")
    assert line in refused(UsageError, [trained, trained], postprocess="fit", output=str(tmp_path / "out"))
    assert "no post-processing" in refused(UsageError, trained, postprocess=str(tmp_path / "nowhere"))
    masks = {"predictions": str(data / "labelsTr"), "reference": str(data / "labelsTr")}
    for wanted in ("fit", "stored"):
        with pytest.raises(UsageError, match="masks of a folder are scored as they are"):
            run(config([], postprocess=wanted, **masks))
    assert not (trained / "evaluation").exists()
    # By content some of the tuning cases are training cases, which allow_seen scores, but nothing is fitted on.
    split = read_json(trained / "split.json")
    contents = split["content_hashes"]
    twin = {split["train"][0]: contents[split["tuning"][0]]}
    write_json(trained / "split.json", split | {"content_hashes": contents | twin})
    seen = {"subset": "tuning", "postprocess": "fit"}
    assert "model run" in refused(DataError, trained, **seen)
    assert "allow_seen=false" in refused(UsageError, trained, allow_seen=True, **seen)
    assert not (trained / FILE).exists()


def test_the_average_that_rules_were_fitted_with_is_theirs(trained):
    run(config(trained, subset="tuning", postprocess="fit", average="probabilities"))
    assert read_postprocessing(trained).average == "probabilities"
    assert read_json(trained / "evaluation" / "tuning" / "summary.json")["average"] == "probabilities"
    text = refused(UsageError, trained, postprocess="stored")
    assert "average=probabilities; or postprocess=none" in text
    run(config(trained, postprocess="stored", average="probabilities"))
    assert counts(trained / "evaluation" / "test" / "postprocessed")


def test_cases_that_chose_the_rules_are_no_test_of_them(trained, capsys):
    run(config(trained, subset="tuning", postprocess="fit"))
    first = load(trained, accelerator="cpu").roles.tuning[0]
    text = refused(DataError, trained, subset="tuning", postprocess="stored")
    assert f"case {first}, {trained / FILE}" in text
    assert "10 of 10 cases" in text
    run(config(trained, subset="tuning", postprocess="stored", allow_seen=True))
    # The row is marked; the plain numbers are what they were.
    output = trained / "evaluation" / "tuning"
    marked = read_json(output / "postprocessed" / "summary.json")
    assert (marked["label"], len(marked["seen_cases"])) == ("SEEN CASES", 10)
    assert {row["note"] for row in rows(output / "postprocessed")} == {"SEEN CASES"}
    assert read_json(output / "postprocessed" / "comparison.json")["label"] == "SEEN CASES"
    assert read_json(output / "summary.json")["label"] == "selection score (optimistic)"
    assert "SEEN CASES: the rules were fitted on 10 of 10" in capsys.readouterr().out


def test_fitted_out_of_fold_for_the_mean_and_tried_on_people_held_out(data, sweep, capsys):
    runs = [one.path for one in SweepDirectory(sweep).runs]
    line = f"python -m segkit.evaluate run={sweep} subset=test postprocess=fit"
    assert line in refused(UsageError, sweep, subset="held_out", postprocess="fit")
    assert line in refused(UsageError, sweep, subset="held_out", postprocess="stored")
    run(config(sweep, postprocess="fit"))
    assert f"fitted on 16 cases of 16 groups; {OUT_OF_FOLD}" in capsys.readouterr().out
    assert not any((fold / FILE).exists() for fold in runs)
    stored = read_postprocessing(sweep)
    assert stored.rules == LARGEST
    stored.require_models(models_of([load(fold, accelerator="cpu") for fold in runs]))
    run(config(sweep, subset="held_out", postprocess="stored", save_predictions=True))
    output = sweep / "evaluation" / "held_out"
    expected = by_hand(data, output / "predictions")
    assert counts(output / "postprocessed") == expected != counts(output)
    assert set(expected) == set(load(runs[0], accelerator="cpu").roles.held_out)
    # They are of the mean, and of no fold: one by one the folds have rules of their own, or none.
    text = refused(UsageError, sweep, postprocess="stored")
    assert f"run={runs[0]} subset=tuning postprocess=fit" in text
    assert "subset=held_out" in text
    assert "other models" in refused(UsageError, sweep, postprocess=str(sweep))


def test_folds_with_rules_of_their_own_are_put_together(data, sweep):
    runs = [one.path for one in SweepDirectory(sweep).runs]
    own = [LARGEST, PostProcessing((ClassRule("ball_a", min_mm3=1e6),))]
    for fold, rules in zip(runs, own, strict=True):
        models = models_of([load(fold, accelerator="cpu")])
        write_json(fold / FILE, {"postprocessing": rules.to_json(), "models": models, "fitting_cases": []})
    run(config(sweep, postprocess="stored"))
    output = sweep / "evaluation" / "test" / "postprocessed"
    apart = {}
    for fold in runs:
        apart |= counts(fold / "evaluation" / "test" / "postprocessed")
    assert counts(output) == apart
    assert {apart[case][:2] for case in load(runs[1], accelerator="cpu").roles.test} == {(0, 0)}
    summary = read_json(output / "summary.json")
    assert summary["postprocessing"] == [rules.to_json() for rules in own]
    assert summary["variant"] == "postprocessed"


def test_one_fold_alone_is_a_run(data, threshold_run):
    path = threshold_run(data, THRESHOLD, "data.split.folds=2", "data.split.fold=0", name="alone/0-fold=0")
    line = f"python -m segkit.evaluate run={path} subset=tuning postprocess=fit"
    assert line in refused(UsageError, path.parent, postprocess="fit")

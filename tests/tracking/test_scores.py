"""Which numbers of the files that verbs write become metrics, under which names, and which never do."""

import json
import math
import warnings

import pytest
from tests.calibration_records import calibration_record
from tests.evaluation_tables import write_tables
from tests.mlflow_stores import doubles, select

from segkit.evaluation.comparison import compare
from segkit.evaluation.comparison_files import write_comparison
from segkit.evaluation.stored_table import read_table
from segkit.runs.directory import RunDirectory
from segkit.runs.sweep import SweepDirectory

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations within MLflow
    from segkit.tracking.mlflow import MlflowCopy
    from segkit.tracking.scores import scores_of_run, scores_of_sweep, send_scores

DICE = {f"c{k}": (0.5 + k / 20, 0.9) for k in range(7)} | {"healthy": (math.nan, 0.8)}


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
    (run.path / "calibration.json").write_text(text)
    assert scores_of_run(run) == []
    assert not any(scores.values for scores in scores_of_sweep(SweepDirectory(run.path)))


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
    (scores,) = scores_of_run(run)
    assert (scores.step, scores.values) == (3, {"test/dice": 0.5})
    assert scores.at == int((folder / "summary.json").stat().st_mtime * 1000)


def test_each_mean_goes_with_its_interval_and_its_number_of_cases(run):
    folder = write_tables(run.path / "evaluation" / "test", DICE, checkpoint={"epoch": 4})
    stored = json.loads((folder / "summary.json").read_text())
    ((values, step),) = [(scores.values, scores.step) for scores in scores_of_run(run)]
    assert step == 4
    assert values["test/score"] == stored["score"]
    front = stored["classes"]["front"]["dice"]
    assert values["test/dice/front"] == front["mean"] == pytest.approx(sum(0.5 + k / 20 for k in range(7)) / 7)
    assert [values["test/dice_low/front"], values["test/dice_high/front"]] == front["interval"]
    assert values["test/dice_n/front"] == 7  # the healthy case has none
    assert values["test/dice_n"] == 8


def test_below_six_people_no_limits_are_sent(run):
    write_tables(run.path / "evaluation" / "test", {"a": (0.5, 0.5)}, checkpoint={"epoch": 1})
    (scores,) = scores_of_run(run)
    assert not [key for key in scores.values if "_low" in key or "_high" in key]
    assert scores.values["test/dice_n"] == 1


def test_distances_and_lesions(run):
    folder = write_tables(run.path / "evaluation" / "test", DICE, checkpoint={"epoch": 1})
    stored = json.loads((folder / "summary.json").read_text())
    mean = {"mean": 0.25, "interval": None, "n": 4}
    lesions = {"f1": mean, "component_dice": mean}
    stored["surface"] = {"front": {"nsd": mean, "missed": 2, "invented": 1}}
    stored["lesions"] = {
        "front": lesions | {"counts": {"reference": 40}},
        "back": lesions | {"counts": {"reference": 4}},
    }
    (folder / "summary.json").write_text(json.dumps(stored))
    (scores,) = scores_of_run(run)
    named = {key: value for key, value in scores.values.items() if key.endswith("/front") and value in (0.25, 2, 1)}
    assert named == {
        "test/nsd/front": 0.25,
        "test/missed/front": 2,
        "test/invented/front": 1,
        "test/lesion_f1/front": 0.25,
        "test/component_dice/front": 0.25,
    }
    assert "test/lesion_f1/back" not in scores.values  # one piece a case: an organ


def test_of_a_sweep_the_folds_and_the_ensemble_have_names_of_their_own(tmp_path):
    write_tables(tmp_path / "evaluation" / "test", DICE, label="out of fold")
    write_tables(tmp_path / "evaluation" / "held_out", {"x": (0.25, 0.75)}, label="test")
    pooled, ensemble = scores_of_sweep(SweepDirectory(tmp_path))
    assert pooled.values["out_of_fold/dice/back"] == pytest.approx((7 * 0.9 + 0.8) / 8)
    assert ensemble.values["held_out/dice"] == pytest.approx(0.5)
    assert not [key for key in pooled.values if not key.startswith("out_of_fold/")]


def test_rows_beside_the_plain_one_have_their_own_names_and_the_difference(run):
    folder = write_tables(run.path / "evaluation" / "test", DICE, checkpoint={"epoch": 4})
    plain = scores_of_run(run)[0].values
    write_tables(folder / "mirrored", DICE | {"c0": (0.75, 1.0)}, checkpoint={"epoch": 4})
    assert [scores.values for scores in scores_of_run(run)] == [plain]  # it is of no plain evaluation that is there
    found = compare([read_table(folder)], [read_table(folder / "mirrored")], ["dice"], label="test")
    write_comparison(folder / "mirrored", found)
    first, second = scores_of_run(run)
    assert (first.values, second.step) == (plain, 4)
    assert {key.split("/")[1] for key in second.values} == {"mirrored"}
    assert second.values["test/mirrored/score"] > plain["test/score"]
    # c0 alone has changed: front from 0.5 to 0.75 in one of seven cases, back from 0.9 to 1 in one of eight.
    assert second.values["test/mirrored/dice/front"] - plain["test/dice/front"] == pytest.approx(0.25 / 7)
    assert second.values["test/mirrored/dice_difference/front"] == pytest.approx(0.25 / 7)
    assert second.values["test/mirrored/dice_difference"] == pytest.approx((0.25 / 7 + 0.1 / 8) / 2)
    low, high = (second.values[f"test/mirrored/dice_difference_{limit}"] for limit in ("low", "high"))
    assert low < second.values["test/mirrored/dice_difference"] < high
    assert second.values["test/mirrored/dice_difference_n"] == 8
    # Rules that were fitted on these cases: the row is marked, and the plain one stays.
    seen = {"label": "SEEN CASES", "seen_cases": ["c0"], "checkpoint": {"epoch": 4}}
    write_tables(folder / "mirrored", DICE, **seen)
    assert [scores.values for scores in scores_of_run(run)] == [plain]


def test_of_a_sweep_the_rows_too(tmp_path):
    for subset in ("test", "held_out"):
        folder = write_tables(tmp_path / "evaluation" / subset, DICE)
        write_tables(folder / "postprocessed", DICE)
        found = compare([read_table(folder)], [read_table(folder / "postprocessed")], ["dice"], label="test")
        write_comparison(folder / "postprocessed", found)
    values = {
        key: value for scores in scores_of_sweep(SweepDirectory(tmp_path)) for key, value in scores.values.items()
    }
    for prefix in ("out_of_fold", "held_out"):
        assert values[f"{prefix}/postprocessed/dice/back"] == values[f"{prefix}/dice/back"]
        assert values[f"{prefix}/postprocessed/dice_difference"] == 0.0


def test_seen_cases_are_never_scores(run):
    seen = {"label": "SEEN CASES", "seen_cases": ["c0"], "checkpoint": {"epoch": 1}}
    for subset in ("test", "held_out"):
        write_tables(run.path / "evaluation" / subset, DICE, **seen)
    assert scores_of_run(run) == []
    assert scores_of_sweep(SweepDirectory(run.path)) == []


def test_a_calibration_by_its_file(run):
    record = calibration_record(["run"], checkpoint=120)
    (run.path / "calibration.json").write_text(json.dumps(record))
    (scores,) = scores_of_run(run)
    values = scores.values
    assert scores.step == 120
    assert (values["calibration/temperature"], values["calibration/temperature_n"]) == (record["temperature"], 12)
    assert [values["calibration/temperature_low"], values["calibration/temperature_high"]] == record["interval"]
    front, back = record["test"]["classes"].values()
    assert values["calibration/ece_before/front"] == front["ece"]["before"]["mean"]
    assert values["calibration/brier_after/back"] == back["brier"]["after"]["mean"]
    both = (front["ece"]["after"]["mean"] + back["ece"]["after"]["mean"]) / 2
    assert values["calibration/ece_after"] == pytest.approx(both)
    assert values["calibration/quality_spearman"] == record["test"]["quality"]["spearman"]
    assert values["calibration/nll_after"] < values["calibration/nll_before"]


def test_the_calibration_of_an_ensemble_is_no_run_s(run):
    (run.path / "calibration.json").write_text(json.dumps(calibration_record(["run", "other"])))
    assert [scores.values for scores in scores_of_run(run)] == [{}]
    (scores,) = scores_of_sweep(SweepDirectory(run.path))
    assert scores.values["calibration/temperature"] > 0


@pytest.mark.filterwarnings("ignore")  # MLflow's and SQLAlchemy's own
def test_more_than_a_request_holds_is_sent_in_several_and_once(run, make_store):
    store = make_store()
    copy = MlflowCopy(run, store=store)
    names = tuple(f"organ_{k}" for k in range(70))
    folder = run.path / "evaluation" / "test"
    write_tables(folder, {f"c{k}": (0.5,) * 70 for k in range(6)}, classes=names, checkpoint={"epoch": 1})
    found = scores_of_run(run)
    assert len(found[0].values) > 1000
    sent = send_scores(copy._client, copy.run_id, found)
    assert sent == len(found[0].values) == select(store, "SELECT count(*) FROM metrics")[0][0]
    assert send_scores(copy._client, copy.run_id, scores_of_run(run)) == 0
    assert doubles(store) == []

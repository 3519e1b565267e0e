import csv
import io
import json
from html.parser import HTMLParser

import pytest
import yaml

from segkit.errors import UsageError
from segkit.reporting.curves import draw_curves
from segkit.reporting.report import write_report
from segkit.runs.directory import RunDirectory

CLASSES = {
    "anterior": {"dice": (0.87, [0.84, 0.9]), "healthy_cases": 2, "false_positive_cases": 1},
    "posterior <b>": {"dice": (0.81, None), "healthy_cases": 0, "false_positive_cases": 0},
}


def _entry(mean, interval):
    return {"mean": mean, "interval": interval, "n": 8, "n_groups": 8}


def _summary():
    classes = {}
    for name, of in CLASSES.items():
        metrics = dict.fromkeys(("iou", "precision", "recall"), _entry(0.7, None)) | {"dice": _entry(*of["dice"])}
        counts = {key: of[key] for key in ("healthy_cases", "false_positive_cases")}
        classes[name] = metrics | counts | {"false_positive_voxels": 12}
    mean = dict.fromkeys(("dice", "iou", "precision", "recall"), _entry(0.84, [0.8, 0.88]))
    return {
        "label": "test",
        "score": 0.8,
        "score_formula": "F1",
        "n_cases": 8,
        "n_groups": 8,
        "mean": mean,
        "classes": classes,
    }


def _per_case():
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["case_id", "group", "class", "dice"])
    for i in range(12):
        writer.writerow([f"case_{i:02d}", f"p{i}", "anterior", repr(0.5 + i / 100)])
        writer.writerow([f"case_{i:02d}", f"p{i}", "posterior", "" if i == 3 else repr(0.6)])
    return text.getvalue()


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "demo").create()
    run.save_config({"seed": 0, "trainer": {"max_epochs": 3}, "note": "a <i>note</i>"})
    run.plan.write_text(json.dumps({"patch_size": [40, 56, 40], "reasons": {"patch_size": "fits in memory"}}))
    run.split.write_text(json.dumps({"train": ["a", "b"], "tuning": ["c"], "test": ["d"]}))
    run.env.write_text(json.dumps({"python": "3.11.7", "packages": {"torch": "2.13.0", "monai": None}}))
    run.save_status("finished", reason="all epochs done")
    row = {"n": 40, "step": 10, "epoch": 1, "key": "train/dice", "value": 0.5}
    run.metrics.write_text(json.dumps(row) + "\n")
    run.timings.write_text(json.dumps(row | {"key": "time/data_wait", "value": 0.25}) + "\n")
    evaluation = run.path / "evaluation" / "test"
    (evaluation / "overlays").mkdir(parents=True)
    (evaluation / "summary.json").write_text(json.dumps(_summary()))
    (evaluation / "per_case.csv").write_text(_per_case())
    run.per_case.write_text(_per_case())
    draw_curves(run.metrics, run.overlays / "case_00.png")
    draw_curves(run.metrics, evaluation / "overlays" / "01-case_00.png")
    alike = {"level": "warning", "what": "odd spacing", "file": "", "why": "5 mm", "mend": "resample it"}
    findings = [alike | {"case": f"case_{i:02d}"} for i in range(5)]
    findings.append(
        {"level": "note", "what": "no groups are given", "case": "", "file": "", "why": "", "mend": "name them"}
    )
    run.findings.write_text(json.dumps({"findings": findings}))
    return run


class _Links(HTMLParser):
    """Collects what a browser would load, and checks that tags close."""

    def __init__(self):
        super().__init__()
        self.loaded, self.open, self.texts = [], [], []

    def handle_starttag(self, tag, attrs):
        self.loaded += [value for key, value in attrs if key in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def _parsed(path):
    parser = _Links()
    parser.feed(path.read_text())
    assert not parser.open
    return parser, " ".join(parser.texts)


def test_one_file_that_loads_nothing_and_says_all(run):
    path = write_report(run)
    assert path == run.report
    parser, text = _parsed(path)
    assert parser.loaded
    assert all(source.startswith("data:image/png;base64,") for source in parser.loaded)
    for expected in (
        "Research software, not a medical device",
        "finished: all epochs done",
        "0.870 [0.840, 0.900]",
        "1 of 2",
        "fits in memory",
        "40 x 56 x 40",
        "selection score (optimistic)",
        "95 % t interval by person",
        "all epochs done",
        "25",
        "2.13.0",
        "not installed",
        "posterior <b>",
        "odd spacing",
        "case_02",
        "2 more cases",
        "name them",
        "case_00: mean Dice 0.550",
        "overlays/case_00.png",
    ):
        assert expected in text, expected
    assert "<b>" not in path.read_text()
    assert path.stat().st_size < 10e6


def test_a_young_run_has_a_report_without_what_is_not_there(tmp_path):
    run = RunDirectory(tmp_path / "young").create()
    run.save_config({"seed": 0})
    output = tmp_path / "elsewhere" / "r.html"
    assert write_report(run, output=output) == output
    _, text = _parsed(output)
    assert "Evaluation" not in text
    assert "Curves" not in text


def test_a_damaged_file_is_named_and_the_rest_is_written(run):
    run.plan.write_text('{"patch_size": [40,')
    _, text = _parsed(write_report(run))
    assert "plan.json" in text
    assert "0.870 [0.840, 0.900]" in text


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError):
        write_report(RunDirectory(tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()


def test_the_configuration_is_shown_as_it_is(run):
    _, text = _parsed(write_report(run))
    assert yaml.safe_load(run.config.read_text())["note"] in text

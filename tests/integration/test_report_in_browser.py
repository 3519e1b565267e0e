"""The pages that verbs write, as a reader sees them in a real browser: their numbers, and that they load nothing."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from tests.calibration_records import write_calibration
from tests.evaluation_tables import write_tables

from segkit.reporting.contact_sheet import draw_tile, sheet_page
from segkit.reporting.curves import draw_curves
from segkit.reporting.report import write_report
from segkit.reporting.sweep_report import write_sweep_report
from segkit.runs.directory import RunDirectory
from segkit.runs.sweep import SweepDirectory
from segkit.types import Labels

_spec = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
chromium = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(chromium)

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(chromium.missing()), reason=chromium.missing() or "-")]

TABLES = """
return [...document.querySelectorAll('table')].map(
  table => [...table.rows].map(row => [...row.cells].map(cell => cell.innerText)));
"""
BROKEN = "return [...document.images].filter(image => !image.complete || image.naturalWidth === 0).length"
FETCHED = (
    "return performance.getEntriesByType('resource').map(one => one.name).filter(name => !name.startsWith('data:'))"
)
DOTS = "return [...document.querySelectorAll('circle')].map(dot => dot.getBoundingClientRect().width)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium.browser(tmp_path_factory.mktemp("browser")) as session:
        yield session


def seen(browser, page):
    """The text and the tables of a page that has loaded nothing and shows all its pictures."""
    browser.open(page.as_uri())
    assert browser.run(BROKEN) == 0
    assert browser.run(FETCHED) == []
    return browser.text(), browser.run(TABLES)


def table(tables, *heads):
    """The rows below the head of the first table whose head holds all these words."""
    return next(rows[1:] for rows in tables if set(heads) <= set(rows[0]))


def text_of(entry):
    interval = entry["interval"]
    return f"{entry['mean']:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def by_class(summary):
    rows = [*summary["classes"].items(), ("mean", summary["mean"])]
    metrics = ("dice", "iou", "precision", "recall")
    return [[name, *(text_of(of[metric]) for metric in metrics), str(of["dice"]["n"])] for name, of in rows]


def evaluated(folder, dice, **facts):
    write_tables(folder, dice, **facts)
    return json.loads((folder / "summary.json").read_text())


def test_the_report_of_a_run(browser, tmp_path):
    run = RunDirectory(tmp_path / "run").create()
    run.save_config({"seed": 0})
    dice = {f"case_{k:02d}": (0.5 + k / 40, 0.8) for k in range(12)}
    summary = evaluated(run.path / "evaluation" / "test", dice)
    (run.path / "evaluation" / "test" / "overlays").mkdir()
    draw_curves(run.metrics, run.path / "evaluation" / "test" / "overlays" / "01-case_00.png")
    record = write_calibration(run.path, ["run"])
    text, tables = seen(browser, write_report(run))
    assert table(tables, "class", "dice", "recall") == by_class(summary)
    assert f"Composite score {summary['score']:.4f}" in text
    assert table(tables, "case", "mean Dice")[0][:2] == ["case_00", "0.650"]
    found = table(tables, "ECE before")
    assert [row[1] for row in found] == [text_of(of["ece"]["before"]) for of in record["test"]["classes"].values()]
    assert "Temperature 1.500 [1.400, 1.600]" in text
    sizes = browser.run(DOTS)
    assert len(sizes) > 24
    assert min(sizes) > 2


def test_the_report_of_a_sweep(browser, tmp_path):
    folder, dice = tmp_path / "cv", {f"case_{k:02d}": (0.5 + k / 40, 0.8) for k in range(12)}
    names = ("0-fold=0", "1-fold=1")
    apart = []
    for fold, name in enumerate(names):
        run = RunDirectory(folder / name).create()
        run.save_config({})
        own = {case: values for k, (case, values) in enumerate(dice.items()) if k % 2 == fold}
        apart.append(evaluated(run.path / "evaluation" / "test", own))
        overlays = run.path / "evaluation" / "test" / "overlays"
        draw_curves(run.metrics, overlays / f"01-case_{fold:02d}.png")
    pooled = evaluated(folder / "evaluation" / "test", dice, label="out of fold", runs=list(names))
    held_out = evaluated(folder / "evaluation" / "held_out", {"x": (0.25, 0.75)}, runs=list(names))
    record = write_calibration(folder, names)
    text, tables = seen(browser, write_sweep_report(SweepDirectory(folder)))
    rows = table(tables, "run", "cases", "Dice")
    assert [row[3] for row in rows] == ["6", "6", "12"]
    assert [row[6] for row in rows] == [text_of(one["mean"]["dice"]) for one in (*apart, pooled)]
    assert table(tables, "class", "dice", "recall") == by_class(pooled)
    assert by_class(held_out) in [rows[1:] for rows in tables]
    assert f"Temperature {record['temperature']:.3f}" in text
    assert "out of fold" in text
    assert browser.run("return document.images.length") == 3  # two overlays, Dice against size


def test_a_contact_sheet(browser, tmp_path):
    labels = Labels(("background", "organ"), (0, 1))
    prediction = np.zeros((30, 20, 10), dtype=np.int16)
    prediction[5:15, 5:15, 2:8] = 1
    image = np.random.default_rng(0).normal(size=(1, 30, 20, 10))
    facts = {"mask": "m.nii.gz", "spacing": (1.0, 1.0, 1.0), "labels": labels, "unit": "mm"}
    tiles = [draw_tile(image, prediction * k, case_id=f"case {k}", **facts) for k in (1, 0)]
    page = tmp_path / "contact_sheet.html"
    page.write_text(sheet_page("masks", tiles, labels, notes=[]))
    text, tables = seen(browser, page)
    assert "organ 0.600 mL" in text
    assert "organ: none" in text
    assert table(tables, "class", "median")[0][1:] == ["organ", "0.600 mL", "0.600 mL", "0.600 mL", "1 of 2"]
    assert browser.run("return [...document.images].map(image => image.naturalWidth)") == [240, 240]

"""What a fit of post-processing looks like in the report: the rules, and of each step what the terminal says."""

import html
import json
import re

import pytest
from tests.islands import ORGAN, data_set

from segkit.inference.postprocessing import ClassRule, PostProcessing
from segkit.reporting.postprocessing_section import postprocessing_section
from segkit.runs.postprocessing import FILE
from segkit.workflows.fitting_postprocessing import fit_postprocessing

MODELS = [{"run": "a<b>", "checkpoint": 120, "step": 0.5, "mirror_axes": []}]


def fitted(folder, cases, unit="mm^2"):
    return fit_postprocessing(cases, ORGAN, models=MODELS, cases_are="tuning cases", output=folder, unit=unit)


def tables(text):
    """Rows of cells of each table."""
    bodies = re.findall("<tbody>(.*?)</tbody>", text)
    rows = [re.findall("<tr>(.*?)</tr>", body) for body in bodies]
    return [[[html.unescape(c) for c in re.findall(r"<td[^>]*>(.*?)</td>", row)] for row in body] for body in rows]


def in_terminal(fit):
    """(change, kept or not, why) of each step that the terminal names."""
    found = (re.fullmatch(r"\s*(kept|not kept): (.*?): (.*)", line) for line in fit.table())
    return [(one[2], one[1], one[3]) for one in found if one]


@pytest.mark.parametrize("unit", ["mm^2", "pixels"])
def test_each_step_with_what_became_of_it_and_why(tmp_path, unit):
    # Islands that are never right, and cases without the organ in which it is predicted all the same.
    fit = fitted(tmp_path, data_set(1, 24, islands=2, right=0.0, healthy=0.4, alarms=0.8), unit)
    text, problems = postprocessing_section(tmp_path, []), []
    postprocessing_section(tmp_path, problems)
    assert problems == []
    assert html.escape(f"Rules: {fit.rules.text(unit)}. Of a<b> at step 120.") in text
    assert "Fitted on 24 cases of 24 people; tuning cases." in text
    (of,), tried = tables(text)
    (one,) = fit.classes
    assert of[:2] == ["organ", one.rule]
    assert of[2] == f"{one.before.mean:.3f} [{one.before.low:.3f}, {one.before.high:.3f}]"
    assert of[3] == f"{one.optimistic.mean:+.4f} [{one.optimistic.low:+.4f}, {one.optimistic.high:+.4f}]"
    assert of[4].startswith(f"{one.cross_validated.mean:+.4f} [")
    assert of[5:] == [f"{one.alarms[0]} -> {one.alarms[1]} of {one.healthy}", str(one.before.n)]
    assert one.healthy > 0
    assert [tuple(row[1:]) for row in tried] == in_terminal(fit)
    assert {row[0] for row in tried} == {"organ"}
    assert any(row[2] == "kept" for row in tried)


def test_a_rule_that_was_dropped_says_why(tmp_path):
    fit = fitted(tmp_path, data_set(3, 16, islands=1, right=1.0))  # every island is right
    assert not fit.rules.changes
    text = postprocessing_section(tmp_path, [])
    assert "Rules: nothing is changed." in text
    _, tried = tables(text)
    assert [tuple(row[1:]) for row in tried] == in_terminal(fit)
    assert {row[2] for row in tried} == {"not kept"}
    assert all("Dice -" in row[3] for row in tried)


def test_where_nothing_could_be_tried_or_nothing_would_change(tmp_path):
    fitted(tmp_path / "few", data_set(4, 14, islands=1, right=0.0, healthy=0.6))
    _, tried = tables(postprocessing_section(tmp_path / "few", []))
    assert tried[0][:3] == ["organ", "nothing", "not kept"]
    assert "10 of 6 are needed" in tried[0][3]
    fitted(tmp_path / "none", data_set(5, 12, islands=0, right=0.0))
    _, tried = tables(postprocessing_section(tmp_path / "none", []))
    assert tried == [["organ", "all", "not kept", "nothing that was tried changes anything"]]


def test_rules_by_hand_no_rules_and_a_damaged_file(tmp_path):
    problems = []
    assert postprocessing_section(tmp_path, problems) == ""
    rules = PostProcessing((ClassRule("organ", keep="largest"),))
    record = {"postprocessing": rules.to_json(), "models": MODELS, "fitting_cases": []}
    (tmp_path / FILE).write_text(json.dumps(record))
    assert "organ: largest component kept" in postprocessing_section(tmp_path, problems)
    assert problems == []
    for content in ("{", '{"models": 3}', json.dumps(record | {"fit": {"unit": "mm^3"}})):
        (tmp_path / FILE).write_text(content)
        assert postprocessing_section(tmp_path, problems) == ""
        assert FILE in problems.pop()

"""What an evaluation looks like in the report: the numbers of its files, and nothing else."""

import csv
import json
import re

import numpy as np
import pytest

from segkit.evaluation import (
    CaseResult,
    DetailSettings,
    EvaluationSettings,
    count_masks,
    detail_case,
    summarise,
    summarise_details,
    write_per_case,
    write_summary,
)
from segkit.reporting.evaluation_section import evaluation_sections, interval_text, worst_cases
from segkit.reporting.pictures import Pictures
from segkit.types import Labels

LABELS = Labels(names=("background", "lesion <b>"), ids=(0, 1))


def entry(mean, interval):
    return {"mean": mean, "interval": interval, "n": 8, "n_groups": 8}


def evaluated(folder, *, instances=False, unit="mm"):
    """The files of an evaluation of twelve cases; in the first nothing was predicted."""
    settings, detail = EvaluationSettings(), DetailSettings()
    results, details = [], []
    for k in range(12):
        truth = np.zeros((30, 30), dtype=np.int16)
        truth[3:9, 3 : 8 + k], truth[15:20, 4:10] = 1, 1
        guess = np.roll(truth, 1, axis=1) if k else np.zeros_like(truth)
        given = {"case_id": f"c{k:02d}", "group": f"p{k}", "spacing": (1.0, 1.0)}
        ids = np.where(truth, 1 + (np.arange(30)[:, None] > 16), 0) if instances else None
        rows = count_masks(guess, truth, **given, num_classes=2, settings=settings)
        results.append(CaseResult(given["case_id"], given["group"], rows))
        details += detail_case(guess, truth, **given, labels=LABELS, settings=detail, instances=ids)
    more = summarise_details(details, LABELS, detail, unit=unit, dimensions=2)
    write_per_case(folder / "per_case.csv", results, LABELS, details=details)
    write_summary(folder / "summary.json", summarise(results, LABELS, settings), facts={"label": "test"}, detail=more)
    return json.loads((folder / "summary.json").read_text())


def sections(folder, **keys):
    return "".join(evaluation_sections(folder, [], Pictures(folder), **keys))


def cells(text, heading):
    """The cells of the first row of the table whose head holds `heading`."""
    return rows_of(text, heading)[0]


def rows_of(text, heading):
    """The cells of each row of the table whose head holds `heading`."""
    table = next(part for part in text.split("<table>")[1:] if heading in part.split("</thead>")[0])
    body = table.split("<tbody>")[1].split("</tbody>")[0]
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in body.split("</tr>")[:-1]]


def test_the_numbers_are_those_of_the_summary(tmp_path):
    summary = evaluated(tmp_path / "evaluation" / "test")
    text = sections(tmp_path)
    surface, lesion = summary["surface"]["lesion <b>"], summary["lesions"]["lesion <b>"]
    name, hd95, assd, nsd, within, similarity, missed, invented, n = cells(text, "HD95, mm")
    assert name == "lesion &lt;b&gt;"
    assert hd95 == f"{interval_text(surface['hd95'])} ({surface['hd95']['where_both']['mean']:.3f})"
    assert assd.startswith(interval_text(surface["assd"]))
    assert nsd == interval_text(surface["nsd"])
    assert (within, missed, invented, n) == ("1 mm", "1", "0", "12")
    assert similarity == interval_text(summary["volume"]["lesion <b>"]["similarity"])
    found = cells(text, "component Dice")
    assert found[1:6] == [
        interval_text(lesion[metric]) for metric in ("f1", "recall", "precision", "panoptic_quality", "component_dice")
    ]
    assert found[6:] == ["22 of 24", "0 of 22", "0", "0"]
    assert text.count("data:image/png;base64,") == 1
    assert "would score" not in text


@pytest.mark.parametrize(("interval", "label"), [([0.0106, 0.0324], "test"), (None, "SEEN CASES")])
def test_a_variant_is_a_row_below_the_plain_one(tmp_path, interval, label):
    folder = tmp_path / "evaluation" / "held_out"
    evaluated(folder)
    assert "in another way" not in sections(tmp_path)
    plain = evaluated(folder)
    other = evaluated(folder / "mirrored") | {"score": 0.12345, "label": label}
    other["mean"] |= {"dice": entry(0.8712, interval) | {"n": 11}}
    (folder / "mirrored" / "summary.json").write_text(json.dumps(other))
    assert "in another way" not in sections(tmp_path)  # of an earlier plain evaluation: it is compared with none
    row = {"class": "mean", "difference": 0.0215, "interval": interval, "n": 11}
    of_class = row | {"class": "lesion <b>", "difference": -0.25, "interval": None}
    (folder / "mirrored" / "comparison.json").write_text(json.dumps({"rows": [of_class, row]}))
    text = sections(tmp_path)
    assert "Evaluation of the held-out cases" in text
    first, second = rows_of(text, "difference in dice")
    means = [interval_text(plain["mean"][metric]) for metric in ("dice", "iou", "precision", "recall")]
    assert first == ["plain", *means, f"{plain['score']:.4f}", "", str(plain["mean"]["dice"]["n"])]
    difference = "+0.0215 [+0.0106, +0.0324]" if interval else "+0.0215"
    name = "mirrored (SEEN CASES)" if label == "SEEN CASES" else "mirrored"
    assert second == [name, interval_text(other["mean"]["dice"]), *means[1:], "0.1235", difference, "11"]
    assert rows_of(text, '<th>class</th><th class="number">difference') == [[name, "lesion &lt;b&gt;", "-0.2500", "11"]]
    # The plain numbers stay where they are, above.
    assert text.index(f"Composite score {plain['score']:.4f}") < text.index("in another way")


def test_photographs_are_measured_in_pixels(tmp_path):
    evaluated(tmp_path / "evaluation" / "test", unit="pixel")
    text = sections(tmp_path)
    assert cells(text, "HD95, pixel")[4] == "1 pixel"
    assert "Surfaces, in pixels:" in text
    assert "NSD within 1 pixel;" in text
    assert not re.search(r"\bmm\b", text)


def test_instances_have_a_ceiling(tmp_path):
    summary = evaluated(tmp_path / "evaluation" / "test", instances=True)
    text = sections(tmp_path)
    ceiling = summary["lesions"]["lesion <b>"]["ceiling"]
    assert "would score" in text
    assert cells(text.split("would score")[1], "PQ")[1:] == [
        interval_text(ceiling["f1"]),
        interval_text(ceiling["panoptic_quality"]),
    ]


def test_what_was_missed_and_invented_is_named_the_largest_first(tmp_path):
    evaluated(tmp_path / "evaluation" / "test")
    path = tmp_path / "evaluation" / "test" / "per_case.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[5] |= {"n_reference": "0", "n_prediction": "7", "dice": ""}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    text = sections(tmp_path)
    assert cells(text, "missed or invented") == ["c00", "lesion &lt;b&gt;", "missed", rows[0]["n_reference"]]
    assert '<td>c05</td><td>lesion &lt;b&gt;</td><td>invented</td><td class="number">7</td>' in text


def test_the_worst_cases_are_drawn_in_their_order_and_what_is_not_drawn_is_named(tmp_path):
    evaluated(tmp_path / "evaluation" / "test")
    overlays, fold = (tmp_path / one / "evaluation" / "test" / "overlays" for one in (".", "fold"))
    for path in (overlays / "01-c00.png", overlays / "02-c01.png", fold / "01-c02.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"png")
    text = sections(tmp_path, drawn_by=[tmp_path / "fold"])
    assert re.findall(r"<figcaption>(c\d\d): mean Dice", text) == ["c00", "c01", "c02"]
    assert "Not drawn: c03, c04, c05, c06, c07, c08, c09." in text


def test_titles_and_what_is_no_result(tmp_path):
    for subset in ("test", "held_out", "tuning"):
        evaluated(tmp_path / "evaluation" / subset)
    text = sections(tmp_path, titles={"held_out": "The ensemble"})
    titles = ["Evaluation of the test cases", "The ensemble", "Evaluation of the tuning cases"]
    assert re.findall("<h2>(.*?)</h2>", text) == titles
    assert text.count('<p class="warning">') == 1
    assert text.index('<p class="warning">') > text.index(titles[2])


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (entry(0.5, [0.25, 0.75]), "0.500 [0.250, 0.750]"),
        (entry(0.5, None), "0.500"),
        (entry(None, None), "n/a"),
        ({}, "n/a"),
    ],
)
def test_intervals_are_written_only_where_they_are_published(given, text):
    assert interval_text(given) == text


def test_the_worst_cases_come_first_and_an_undefined_dice_does_not_count_as_zero():
    rows = [
        {"case_id": "a", "class": "x", "dice": "0.9"},
        {"case_id": "a", "class": "y", "dice": ""},
        {"case_id": "b", "class": "x", "dice": "0.2"},
        {"case_id": "b", "class": "y", "dice": "0.8"},
        {"case_id": "healthy", "class": "x", "dice": ""},
    ]
    worst = worst_cases(rows, 10)
    assert [case for case, _, _ in worst] == ["b", "a"]
    assert [mean for _, mean, _ in worst] == pytest.approx([0.5, 0.9])
    assert worst_cases(rows, 1)[0][0] == "b"


def test_classes_that_were_not_annotated_everywhere_are_told(tmp_path):
    folder = tmp_path / "evaluation" / "test"
    summary = evaluated(folder)
    assert "Not annotated" not in sections(tmp_path)
    summary["classes"]["lesion <b>"]["not_annotated_cases"] = 5
    (folder / "summary.json").write_text(json.dumps(summary))
    text = sections(tmp_path)
    assert "Not annotated, and not applicable there: lesion &lt;b&gt; in 5 of 12 cases." in text

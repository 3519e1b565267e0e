"""The part of the report that an evaluation fills: classes with intervals, distances, lesions, the worst cases."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from segkit.evaluation.comparison_files import COMPARISON, compared_rows
from segkit.metrics.lesion_detection import are_lesions
from segkit.metrics.surface import length_text
from segkit.ops.connected_components import size_unit
from segkit.reporting.html import paragraph, picture, section, table
from segkit.reporting.pictures import Pictures, drawn_cases
from segkit.runs.files import read_json

METRICS: Final = ("dice", "iou", "precision", "recall")
SEEN: Final = "SEEN CASES"
_RESULTS = ("test", "held_out")
"""Subsets whose scores are a result; others have chosen or made the model."""
_WORST, _NAMED = 10, 20


def evaluation_sections(
    folder: Path,
    problems: list[str],
    pictures: Pictures,
    *,
    titles: Mapping[str, str] | None = None,
    drawn_by: Sequence[Path] = (),
) -> Iterator[str]:
    """A section for each evaluation in the folder: classes with intervals, what was missed and invented, worst cases.

    Args:
        folder: Of the run or the sweep.
        problems: Takes note of files that are damaged.
        pictures: Room for overlays.
        titles: Of the sections, by subset, where they are not the usual ones.
        drawn_by: Folders of runs whose evaluations of the same subset have drawn these cases.
    """
    summaries = sorted(folder.glob("evaluation/*/summary.json"), key=lambda p: (p.parent.name != "test", p.parent.name))
    for path in summaries:
        summary, subset = read_record(path, problems), path.parent.name
        if not summary.get("classes"):
            continue
        cases = read_rows(path.with_name("per_case.csv"))
        places = [one / "evaluation" / subset / "overlays" for one in (folder, *drawn_by)]
        title = (titles or {}).get(subset, f"Evaluation of the {subset.replace('_', '-')} cases")
        numbers = _numbers(summary, cases, subset, variants=_variants(path.parent, summary, problems))
        yield section(title, *numbers, *_worst(cases, drawn_cases(places), pictures))


def class_table(summary: Mapping[str, Any]) -> str:
    """Dice, IoU, precision and recall by class, with intervals, and their means over the classes."""
    rows = list(summary["classes"].items())
    rows += [("mean", summary["mean"])] if len(rows) > 1 else []
    return table(
        ("class", *METRICS, "n"),
        [(name, *(interval_text(of[m]) for m in METRICS), str(of["dice"]["n"])) for name, of in rows],
        numbers_from=1,
    )


def interval_text(entry: Mapping[str, Any]) -> str:
    """`0.871 [0.842, 0.900]`; the mean alone where no interval is published, `n/a` where there is no mean."""
    if entry.get("mean") is None:
        return "n/a"
    interval = entry.get("interval")
    return f"{entry['mean']:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def worst_cases(rows: Sequence[Mapping[str, str]], number: int) -> list[tuple[str, float, str]]:
    """The cases of the lowest mean Dice over their classes: (case, mean Dice, Dice by class).

    Cases without any class in their reference have no Dice and are left out.

    Args:
        rows: Of per_case.csv.
        number: How many at most.
    """
    cases: dict[str, list[tuple[str, float]]] = {}
    for row in rows:
        if row.get("dice"):
            cases.setdefault(row["case_id"], []).append((row["class"], float(row["dice"])))
    means = [
        (
            sum(dice for _, dice in classes) / len(classes),
            case,
            ", ".join(f"{name} {dice:.3f}" for name, dice in classes),
        )
        for case, classes in cases.items()
    ]
    return [(case, mean, text) for mean, case, text in sorted(means)[:number]]


def read_rows(path: Path) -> list[dict[str, str]]:
    """The lines of a table; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_record(path: Path, problems: list[str]) -> dict[str, Any]:
    """A JSON object; empty where there is no file, empty and named where it is damaged."""
    if not path.is_file():
        return {}
    try:
        value = read_json(path)
    except ValueError as error:
        problems.append(f"{path.name} is damaged: {error}")
        return {}
    return value if isinstance(value, dict) else {}


def _numbers(
    summary: Mapping[str, Any], cases: Sequence[Mapping[str, str]], subset: str, *, variants: Iterable[str]
) -> Iterator[str]:
    label = summary.get("label")
    is_result = subset in _RESULTS and label != SEEN
    yield paragraph(f"Label: {label}", kind="note" if is_result else "warning") if label else ""
    yield paragraph(
        f"{summary['n_cases']} cases of {summary['n_groups']} people. Mean over the cases that have the class, "
        "95 % t interval by person; no interval below 6 people. Dice is F1."
    )
    yield class_table(summary)
    yield _score_line(summary)
    yield from variants
    yield _false_positives(summary["classes"])
    yield _not_annotated(summary["classes"], summary.get("n_cases"))
    yield from _missed_and_invented(cases)
    yield from _surfaces(summary)
    yield from _lesions(summary)
    yield _dice_by_size(cases)


def _score_line(summary: Mapping[str, Any]) -> str:
    score = summary.get("score")
    return paragraph(f"Composite score {score:.4f} = {summary.get('score_formula', '')}") if score is not None else ""


def _variants(folder: Path, plain: Mapping[str, Any], problems: list[str]) -> Iterator[str]:
    """What the same weights come to where they predict in another way: a row each, below that of the plain prediction.

    In the words of the terminal; the difference is by class too, since what helps one may harm another.
    """
    rows, classes = [("plain", *_row_cells(plain, ""))], []
    for row in compared_rows(folder):
        summary, compared = (read_record(row / name, problems) for name in ("summary.json", COMPARISON))
        differences = compared.get("rows") or []
        if not differences or not summary.get("mean"):
            continue
        name = row.name + (f" ({SEEN})" if summary.get("label") == SEEN else "")
        rows.append((name, *_row_cells(summary, _signed(differences[-1]))))
        classes += [(name, of["class"], _signed(of), str(of["n"])) for of in differences[:-1]]
    if len(rows) > 1:
        yield paragraph(
            "The same weights, predicting in another way, beside the plain prediction: means over the classes, and the "
            "paired difference in dice against the plain prediction, by person. The plain row is the one that "
            "checkpoints are selected by."
        )
        yield table(("", *METRICS, "score", "difference in dice", "n"), rows, numbers_from=1)
        yield table(("", "class", "difference in dice", "n"), classes, numbers_from=2)


def _row_cells(summary: Mapping[str, Any], difference: str) -> tuple[str, ...]:
    score, means = summary.get("score"), summary["mean"]
    texts = (interval_text(means[metric]) for metric in METRICS)
    return (*texts, "n/a" if score is None else f"{score:.4f}", difference, str(means["dice"]["n"]))


def _signed(row: Mapping[str, Any]) -> str:
    """`+0.0041 [+0.0012, +0.0070]`; `n/a` where no case has the metric on both sides."""
    if not row["n"]:
        return "n/a"
    interval = row["interval"]
    return f"{row['difference']:+.4f}" + (f" [{interval[0]:+.4f}, {interval[1]:+.4f}]" if interval else "")


def _false_positives(classes: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (name, f"{of['false_positive_cases']} of {of['healthy_cases']}", str(of["false_positive_voxels"]))
        for name, of in classes.items()
        if of.get("healthy_cases")
    ]
    return table(("class", "predicted in cases without it", "voxels"), rows, numbers_from=1)


def _not_annotated(classes: Mapping[str, Mapping[str, Any]], n_cases: object) -> str:
    partly = [
        f"{name} in {of['not_annotated_cases']} of {n_cases} cases"
        for name, of in classes.items()
        if of.get("not_annotated_cases")
    ]
    return paragraph(f"Not annotated, and not applicable there: {', '.join(partly)}.") if partly else ""


def _missed_and_invented(cases: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Each case of which a class was found nowhere, or of which one was found that is not there; the largest first."""
    found = []
    for row in cases:
        true, guessed = int(row.get("n_reference") or 0), int(row.get("n_prediction") or 0)
        if (true > 0) != (guessed > 0):
            found.append((true + guessed, row["case_id"], row["class"], "missed" if true else "invented"))
    if not found:
        return
    largest = sorted(found, key=lambda one: (-one[0], one[1:]))[:_NAMED]
    more = f"; the largest {_NAMED} of {len(found)}" if len(found) > _NAMED else ""
    yield paragraph(f"Missed: the reference has the class, no voxel of it was predicted. Invented: the reverse{more}.")
    rows = [(case, name, how, str(voxels)) for voxels, case, name, how in largest]
    yield table(("case", "class", "missed or invented", "voxels"), rows, numbers_from=3)


def _worst(cases: Sequence[Mapping[str, str]], drawn: Mapping[str, Path], pictures: Pictures) -> Iterator[str]:
    """The cases of the lowest Dice, as numbers and, where they were drawn, as pictures."""
    worst = worst_cases(cases, _WORST)
    if not worst:
        return
    yield paragraph(f"The {len(worst)} lowest cases:")
    yield table(("case", "mean Dice", "by class"), [(case, f"{mean:.3f}", text) for case, mean, text in worst])
    for case, mean, text in worst:
        if case in drawn:
            yield pictures.show(drawn[case], caption=f"{case}: mean Dice {mean:.3f} ({text})")
    if missing := ", ".join(case for case, _, _ in worst if case not in drawn):
        yield paragraph(f"Not drawn: {missing}. `evaluate overlays={_WORST}` draws the lowest ten.", kind="note")


def _surfaces(summary: Mapping[str, Any]) -> Iterator[str]:
    """Distances and volumes by class, with what is missing on either side beside them."""
    surfaces, unit = summary.get("surface") or {}, summary.get("unit", "mm")
    if not surfaces:
        return
    volumes, units = summary["volume"], "pixels" if unit == "pixel" else unit
    yield paragraph(
        f"Surfaces, in {units}: HD95 and ASSD with the image's diagonal where one side is empty, NSD 0 there; in round "
        "brackets over the cases where both sides are there. Volume similarity 1 is the same volume."
    )
    yield table(
        ("class", f"HD95, {unit}", f"ASSD, {unit}", "NSD", "within", "volume similarity", "missed", "invented", "n"),
        [
            (
                name,
                _with_where_both(of["hd95"]),
                _with_where_both(of["assd"]),
                interval_text(of["nsd"]),
                length_text(of["nsd"]["tolerance_mm"], unit),
                interval_text(volumes[name]["similarity"]),
                str(of["missed"]),
                str(of["invented"]),
                str(of["nsd"]["n"]),
            )
            for name, of in surfaces.items()
        ],
        numbers_from=1,
    )
    yield paragraph(str(summary["rules"]["surface_elements"]), kind="note")


def _lesions(summary: Mapping[str, Any]) -> Iterator[str]:
    """Lesions one by one, by class; then how many were found of each size."""
    lesions = summary.get("lesions") or {}
    if not any(are_lesions(of["counts"]["reference"], of["f1"]["n"]) for of in lesions.values()):
        return  # organs: one piece a case
    size = summary.get("size_unit") or size_unit(str(summary.get("unit", "mm")), 3)
    yield paragraph("Lesions (separate pieces of a class), mean over the cases that have any.")
    yield table(
        ("class", "F1", "recall", "precision", "PQ", "component Dice", "found", "invented", "split", "merged"),
        [
            (
                name,
                *(interval_text(of[m]) for m in ("f1", "recall", "precision", "panoptic_quality", "component_dice")),
                f"{of['counts']['found']} of {of['counts']['reference']}",
                f"{of['counts']['invented']} of {of['counts']['predicted']}",
                str(of["counts"]["splits"]),
                str(of["counts"]["merges"]),
            )
            for name, of in lesions.items()
        ],
        numbers_from=1,
    )
    yield paragraph(str(summary["rules"]["lesion_matching"]), kind="note")
    yield table(
        ("class", f"lesions from, {size}", "found, by reference size", "false, by predicted size"),
        [
            (
                name,
                f"{found['from_mm3']:g}",
                f"{found['found']} of {found['lesions']}",
                f"{false['false']} of {false['lesions']}",
            )
            for name, of in lesions.items()
            for found, false in zip(of["recall_by_size"], of["false_by_size"], strict=True)
            if found["lesions"] or false["lesions"]
        ],
        numbers_from=1,
    )
    if ceilings := {name: of["ceiling"] for name, of in lesions.items() if "ceiling" in of}:
        yield paragraph("The reference itself, reduced to one class and split into components again, would score:")
        rows = [(name, interval_text(of["f1"]), interval_text(of["panoptic_quality"])) for name, of in ceilings.items()]
        yield table(("class", "F1", "PQ"), rows, numbers_from=1)


def _dice_by_size(cases: Sequence[Mapping[str, str]]) -> str:
    """A picture: Dice of each case and class against the size of its reference."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in cases:
        if row.get("dice") and int(row.get("n_reference") or 0):
            points.setdefault(row["class"], []).append((float(row["n_reference"]), float(row["dice"])))
    if sum(map(len, points.values())) < _WORST:
        return ""
    return picture(_scatter(points), caption="Dice of each case against the size of its reference")


def _scatter(points: Mapping[str, Sequence[tuple[float, float]]]) -> bytes:
    figure = Figure(figsize=(7.0, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, of in points.items():
        axes.scatter([size for size, _ in of], [dice for _, dice in of], s=14, alpha=0.7, label=name)
    axes.set(xscale="log", xlabel="voxels of the reference", ylabel="Dice", ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=110)
    return png.getvalue()


def _with_where_both(entry: Mapping[str, Any]) -> str:
    """`3.21 [2.80, 3.62] (2.90)`; the second number only where it differs."""
    text, both = interval_text(entry), entry["where_both"]["mean"]
    if both is None or entry["mean"] is None or math.isclose(both, entry["mean"]):
        return text
    return f"{text} ({both:.3f})"

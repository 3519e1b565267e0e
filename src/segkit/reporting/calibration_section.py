"""The part of the report that a calibration fills: the temperature, what it changed, what is estimated of a mask."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from segkit.reporting.evaluation_section import interval_text, read_record, read_rows
from segkit.reporting.html import paragraph, row_of, section, table
from segkit.reporting.svg import AFTER, BEFORE, corner_of, dots, line, unit_square
from segkit.runs.calibration import FILE, TABLE

MOST_DRAWN: Final = 12
"""Classes whose diagram is drawn; the table has all."""
_ALL = "all"


def calibration_section(folder: Path, problems: list[str]) -> str:
    """The calibration of a run, or of the mean of several; nothing where there is none.

    Args:
        folder: Where calibration.json and its table of cases lie.
        problems: Takes note of a file that is damaged.
    """
    record = read_record(folder / FILE, problems)
    if not record:
        return ""
    try:
        return section("Calibration", *_parts(record, read_rows(folder / TABLE)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problems.append(f"{FILE} cannot be understood: {error!r}")
        return ""


def _parts(record: Mapping[str, Any], rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    fit, test, unit = record["fit"], record["test"], record["unit"]
    temperature = interval_text({"mean": record["temperature"], "interval": record["interval"]})
    models = ", ".join(f"{model['run']} at step {model['checkpoint']}" for model in record["models"])
    yield paragraph(
        f"Temperature {temperature}, fitted on {fit['n_cases']} cases of {fit['n_groups']} people and tried on "
        f"{test['n_cases']} cases of {test['n_groups']} other people. Above 1 the network is surer than it is right."
    )
    yield paragraph(f"Of {models}. Fitting cases: {fit['cases_are']}.", kind="note")
    yield table(
        ("class", "ECE before", "after", "pooled ECE before", "after", "Brier before", "after", "n"),
        [_class_row(name, of) for name, of in test["classes"].items()],
        numbers_from=1,
    )
    nll = " to ".join(interval_text(test["nll"][when]) for when in ("before", "after"))
    yield paragraph(
        f"Negative log-likelihood from {nll} nats a voxel. Voxels within {record['margin']:g} {unit} of a class in "
        "truth or prediction; expected calibration error (ECE) of 15 bins; means over cases, 95 % interval by person."
    )
    classes = list(test["classes"].items())
    yield row_of(_diagram(name, of["reliability"]) for name, of in classes[:MOST_DRAWN])
    yield paragraph(
        "Reliability: how often voxels are of the class, against the probability that they were given, before (dashed, "
        "orange) and after (blue); a dot's area is its share of the voxels. On the right of a plot too sure is below "
        "the diagonal, on the left above it"
        + (f". {MOST_DRAWN} of {len(classes)} classes are drawn." if len(classes) > MOST_DRAWN else "."),
        kind="note",
    )
    yield from _quality(test["quality"], rows)


def _class_row(name: str, of: Mapping[str, Any]) -> tuple[str, ...]:
    pooled = ("n/a" if of["pooled_ece"][when] is None else f"{of['pooled_ece'][when]:.3f}" for when in _WHEN)
    ece, brier = ([interval_text(of[metric][when]) for when in _WHEN] for metric in ("ece", "brier"))
    return (name, *ece, *pooled, *brier, str(of["ece"]["after"]["n"]))


_WHEN: Final = ("before", "after")


def _diagram(name: str, tables: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    marks = []
    for when, colour in zip(_WHEN, (BEFORE, AFTER), strict=True):
        points = [(row["probability"], row["frequency"]) for row in tables[when]]
        shares = [row["share"] for row in tables[when]]
        names = [
            f"{when}: p {p:.3f}, right {f:.3f}, {s:.1%} of the voxels" for (p, f), s in zip(points, shares, strict=True)
        ]
        marks += [
            line(points, colour=colour, dashed=when == "before"),
            dots(points, colour=colour, sizes=shares, names=names),
        ]
    return unit_square(marks, title=name, x="probability", y="frequency")


def _quality(quality: Mapping[str, Any], rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """The estimate of each case's Dice against the truth."""
    pairs = [
        (row["case_id"], float(row["dice_estimate"]), float(row["dice"]))
        for row in rows
        if row["class"] == _ALL and row["dice_estimate"] and row["dice"]
    ]
    if not pairs:
        return
    points = [(estimate, dice) for _, estimate, dice in pairs]
    names = [f"{case}: estimated {estimate:.3f}, true {dice:.3f}" for case, estimate, dice in pairs]
    low = corner_of(points)
    marks = [dots(points, colour=AFTER, names=names, low=low)]
    yield row_of([unit_square(marks, title="Quality of a mask", x="estimated Dice", y="true Dice", low=low)])
    rho = quality["spearman"]
    interval = quality["interval"]
    limits = f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""
    yield paragraph(
        f"Dice that the probabilities promise, against the true one, a dot a case (mean over its classes). Spearman "
        f"{'n/a' if rho is None or math.isnan(rho) else f'{rho:.2f}'}{limits}, {quality['n']} cases of "
        f"{quality['n_groups']} people; estimate less truth {interval_text(quality['error'])}."
    )

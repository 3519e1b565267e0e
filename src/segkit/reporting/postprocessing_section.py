"""The part of the report that a fit of post-processing fills: which rule was kept, which was not, and why."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from segkit.evaluation.postprocessing_choice import ALL_CLASSES, reason_text
from segkit.inference.postprocessing import PostProcessing
from segkit.reporting.evaluation_section import interval_text, read_record
from segkit.reporting.html import paragraph, section, table
from segkit.runs.postprocessing import FILE


def postprocessing_section(folder: Path, problems: list[str]) -> str:
    """The rules of a run, or of the mean of several; nothing where none were fitted.

    Args:
        folder: Where postprocessing.json lies.
        problems: Takes note of a file that is damaged.
    """
    record = read_record(folder / FILE, problems)
    if not record:
        return ""
    try:
        return section("Post-processing", *_parts(record))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problems.append(f"{FILE} cannot be understood: {error!r}")
        return ""


def _parts(record: Mapping[str, Any]) -> Iterator[str]:
    rules = PostProcessing.from_json(record["postprocessing"])
    models = ", ".join(f"{model['run']} at step {model['checkpoint']}" for model in record["models"])
    fit = record.get("fit")
    yield paragraph(f"Rules: {rules.text(fit['unit'] if fit else 'mm^3')}. Of {models}.")
    if not fit:
        return  # written by hand
    yield paragraph(
        f"Fitted on {fit['n_cases']} cases of {fit['n_groups']} people; {fit['cases_are']}. The optimistic gain is "
        "that on the cases that chose the rules; the other one of people left out, by rules chosen without them. "
        "Neither is a test: that is the row `postprocessed` of an evaluation.",
        kind="note",
    )
    classes: Mapping[str, Mapping[str, Any]] = fit["classes"]
    yield table(
        ("class", "rule", "Dice before", "gain (optimistic)", "gain, people left out", "false alarms", "n"),
        [
            (
                name,
                of["rule"],
                interval_text(of["dice_before"]),
                _gain(of["gain_optimistic"]),
                _gain(of["gain_cross_validated"]),
                _alarms(of["false_alarms"]),
                str(of["dice_before"]["n"]),
            )
            for name, of in classes.items()
        ],
        numbers_from=2,
    )
    tried = [row for name, of in classes.items() for row in _tried(name, of["steps"], of["left_out"])]
    yield table(("class", "tried", "", "why"), [*tried, *_steps(ALL_CLASSES, fit["all_classes"])])
    yield paragraph(f"Kept: {fit['rules']['kept']}.", kind="note")


def _tried(name: str, steps: Sequence[Mapping[str, Any]], left_out: str) -> list[tuple[str, ...]]:
    """The steps that were kept and the best that was not, or why there is none."""
    if left_out:
        return [(name, "nothing", "not kept", left_out)]
    return _steps(name, steps) or [(name, "all", "not kept", "nothing that was tried changes anything")]


def _steps(name: str, steps: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    return [(name, str(step["change"]), "kept" if step["kept"] else "not kept", _why(step)) for step in steps]


def _why(step: Mapping[str, Any]) -> str:
    error, bar = step["standard_error"], step["standard_errors_needed"]
    return reason_text(
        step["measure"],
        float(step["gain"]),
        math.nan if error is None else float(error),
        math.inf if bar is None else float(bar),
        step["obstacle"],
    )


def _gain(entry: Mapping[str, Any]) -> str:
    """`+0.0123 [+0.0100, +0.0146]`; `n/a` where there is no mean."""
    if entry["mean"] is None:
        return "n/a"
    interval = entry.get("interval")
    return f"{entry['mean']:+.4f}" + (f" [{interval[0]:+.4f}, {interval[1]:+.4f}]" if interval else "")


def _alarms(of: Mapping[str, Any]) -> str:
    return f"{of['before']} -> {of['after']} of {of['cases']}" if of["cases"] else "no such case"

"""report.html of a sweep: its runs side by side, the folds of a cross-validation together, their ensemble.

Made from the folders alone, like the report of a run: what is missing there is left out here, and what does not go
together any more is named.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from segkit.errors import UsageError
from segkit.reporting.calibration_section import calibration_section
from segkit.reporting.evaluation_section import evaluation_sections, interval_text, read_record, read_rows
from segkit.reporting.html import paragraph, section, table
from segkit.reporting.pictures import Pictures
from segkit.reporting.postprocessing_section import postprocessing_section
from segkit.reporting.report import write_page
from segkit.runs.directory import RunDirectory
from segkit.runs.sweep import SweepDirectory

_TITLES = {"test": "All folds together, out of fold", "held_out": "Ensemble of the runs on held-out people"}
_MOST_CLASSES = 4
"""Classes that have a column of their own in the table of the folds."""


def write_sweep_report(sweep: SweepDirectory, *, output: Path | None = None) -> Path:
    """Write the report of a sweep.

    Args:
        sweep: Its folder.
        output: File to write; report.html in the folder if None.

    Returns:
        The file.

    Raises:
        UsageError: There is no run in the folder.
    """
    if not sweep.exists:
        raise UsageError("There is no run in the folder.", where=str(sweep.path), mend="name the folder of the runs")
    problems: list[str] = []
    runs = sweep.runs
    pooled = read_record(sweep.evaluation / "test" / "summary.json", problems)
    apart = {run.name: read_record(_test(run) / "summary.json", problems) for run in runs}
    problems += _out_of_step(sweep, pooled)
    sections = [
        section("Runs", paragraph(_swept(sweep, runs)), _runs(runs, apart, pooled), _folds_note(pooled)),
        *evaluation_sections(
            sweep.path, problems, Pictures(sweep.path), titles=_TITLES, drawn_by=[run.path for run in runs]
        ),
        postprocessing_section(sweep.path, problems),
        calibration_section(sweep.path, problems),
        section("Where everything is", _places(runs)),
    ]
    return write_page(output or sweep.report, sweep.name, sections, problems)


def _swept(sweep: SweepDirectory, runs: Sequence[RunDirectory]) -> str:
    swept = sweep.swept
    return f"{len(runs)} runs" + (f", swept over {' '.join(swept)}" if swept else "") + f". Folder: {sweep.path}"


def _runs(runs: Sequence[RunDirectory], apart: Mapping[str, Mapping[str, Any]], pooled: Mapping[str, Any]) -> str:
    """A line a run, by its own test cases, and one for all of them together."""
    scored = [summary for summary in (*apart.values(), pooled) if summary.get("classes")]
    names = list(scored[0]["classes"]) if scored else []
    shown = names if 1 < len(names) <= _MOST_CLASSES else []
    rows = [(run.name, *_state(run), *_score(apart[run.name], shown)) for run in runs]
    if pooled.get("classes"):
        rows.append((f"all, {pooled['label']}", "", "", *_score(pooled, shown)))
    head = ("run", "state", "selected checkpoint", "cases", "people", "score", "Dice", *(f"Dice {n}" for n in shown))
    return table(head, rows, numbers_from=3)


def _state(run: RunDirectory) -> tuple[str, str]:
    """How the run stands, and the epoch of the checkpoint it stands for."""
    status = run.load_status()
    held, state = run.holder() is not None, str(status.get("state", "never started"))
    epoch = status.get("epoch")
    return ("running" if held else "left without an end" if state == "running" else state), (
        "" if epoch is None or "selected" not in status else f"epoch {epoch} of {status.get('max_epochs', '?')}"
    )


def _score(summary: Mapping[str, Any], classes: Sequence[str]) -> tuple[str, ...]:
    """Cases, people, score and Dice of an evaluation; empty where there is none."""
    if not summary.get("classes"):
        return ("", "", "", "", *("" for _ in classes))
    score = summary.get("score")
    return (
        str(summary["n_cases"]),
        str(summary["n_groups"]),
        "n/a" if score is None else f"{score:.4f}",
        interval_text(summary["mean"]["dice"]),
        *(interval_text(summary["classes"].get(name, {}).get("dice", {})) for name in classes),
    )


def _folds_note(pooled: Mapping[str, Any]) -> str:
    if not pooled.get("classes"):
        return paragraph(
            "Not evaluated together. Folds are by: python -m segkit.evaluate run=<this folder>", kind="note"
        )
    return paragraph(
        "Each run on its own test cases, which it has not seen. The last line is the mean over all cases, each by the "
        "run that has not seen it; it is no mean of the lines above, whose intervals are of fewer people.",
        kind="note",
    )


def _out_of_step(sweep: SweepDirectory, pooled: Mapping[str, Any]) -> Iterator[str]:
    """Runs that the table of all cases leaves out, or no longer agrees with."""
    if not pooled.get("classes"):
        return
    evaluated = {str(name) for name in pooled.get("runs", ())}
    if left := [run.name for run in sweep.runs if run.name not in evaluated]:
        yield f"Not in the numbers of all folds together: {', '.join(left)}. Evaluate the sweep again."
    together = {_identity(row) for row in read_rows(sweep.evaluation / "test" / "per_case.csv")}
    changed = [
        run.name
        for run in sweep.runs
        if run.name in evaluated and not {_identity(row) for row in read_rows(_test(run) / "per_case.csv")} <= together
    ]
    if changed:
        yield f"Evaluated anew since the numbers of all folds together: {', '.join(changed)}. Evaluate the sweep again."


def _identity(row: Mapping[str, str]) -> tuple[str | None, ...]:
    return tuple(row.get(key) for key in ("case_id", "class", "tp", "fp", "fn"))


def _places(runs: Sequence[RunDirectory]) -> str:
    rows = [(run.name, str(run.path), "report.html" if run.report.is_file() else "none") for run in runs]
    return table(("run", "folder", "its own report"), rows)


def _test(run: RunDirectory) -> Path:
    return run.evaluation / "test"

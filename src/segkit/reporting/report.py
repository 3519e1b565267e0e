"""report.html of a run: everything a reader needs in one file that opens anywhere and loads nothing.

Made from the run folder alone, so it can be made again at any time, also for a run that has not ended. What is
missing there is left out here; a damaged file is named.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from segkit.reporting.calibration_section import calibration_section
from segkit.reporting.curves import Series, curves_png, read_series
from segkit.reporting.evaluation_section import evaluation_sections, read_record, read_rows, worst_cases
from segkit.reporting.html import folded, heading, page, paragraph, picture, section, table
from segkit.reporting.pictures import Pictures
from segkit.reporting.postprocessing_section import postprocessing_section
from segkit.runs.directory import RunDirectory
from segkit.runs.files import atomic_write
from segkit.runs.standing import standing

_OPTIMISTIC = "selection score (optimistic)"
_ALIKE = 3


def write_report(run: RunDirectory, *, output: Path | None = None) -> Path:
    """Write the report of a run.

    Args:
        run: Its folder.
        output: File to write; report.html in the folder if None.

    Returns:
        The file.

    Raises:
        UsageError: The folder is no run.
    """
    run.load_config()
    facts = standing(run)
    problems: list[str] = list(facts["problems"])
    documents = {path.stem: read_record(path, problems) for path in (run.plan, run.split, run.findings, run.env)}
    pictures = Pictures(run.path)
    sections = [
        section("Run", _run_table(facts)),
        *evaluation_sections(run.path, problems, pictures),
        postprocessing_section(run.path, problems),
        calibration_section(run.path, problems),
        section("Tuning cases", _tuning(run), *_drawn(run, pictures)),
        section("Curves", _curves(run)),
        section("Data", _roles(documents["split"]), *_findings(documents["findings"])),
        section("Plan", _plan(documents["plan"])),
        section("Time and memory", _timing(read_series(run.timings))),
        section("Environment", _environment(documents["env"])),
        section("Configuration", folded("config.yaml", run.config.read_text(encoding="utf-8"))),
    ]
    return write_page(output or run.report, run.name, sections, problems)


def write_page(path: Path, name: str, sections: Iterable[str], problems: Iterable[str]) -> Path:
    """Write a report: its name, what it is not, what is wrong with it, and its sections.

    Args:
        path: File to write; its folder is made.
        name: Of the run or the sweep.
        sections: Those that are empty are left out.
        problems: Files that are damaged or do not go together.
    """
    head = [heading(name), paragraph("Made by segkit. Research software, not a medical device.", kind="note")]
    head += [paragraph(problem, kind="warning") for problem in problems]
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, page(f"segkit: {name}", [*head, *(part for part in sections if part)]))
    return path


def _curves(run: RunDirectory) -> str:
    """The curves as they were drawn last, or drawn now where the journal is newer."""
    drawn, journal = run.curves, run.metrics
    if drawn.is_file() and journal.is_file() and drawn.stat().st_mtime_ns >= journal.stat().st_mtime_ns:
        return picture(drawn.read_bytes())
    series = read_series(run.metrics)
    return picture(curves_png(series)) if series else ""


def _run_table(facts: Mapping[str, Any]) -> str:
    best = facts["best_score"]
    rows = [
        ("state", str(facts["state"]) + (f": {facts['reason']}" if facts["reason"] else "")),
        ("epochs", f"{facts['epoch']} of {facts['max_epochs'] or '?'}"),
        ("steps, training samples", f"{facts['step']}, {facts['samples']}"),
        (f"best {_OPTIMISTIC}", "none" if best is None else f"{best:.4f} in epoch {facts['best_epoch']}"),
        ("folder", str(facts["path"])),
    ]
    return table(("", ""), rows)


def _tuning(run: RunDirectory) -> str:
    """The tuning cases by the selected checkpoint, under the honest name."""
    rows = read_rows(run.per_case)
    if not rows:
        return ""
    listed = [
        (case, f"{mean:.3f}", text) for case, mean, text in worst_cases(rows, len({row["case_id"] for row in rows}))
    ]
    remark = f"{_OPTIMISTIC}: these cases chose the checkpoint, so this is no result."
    return paragraph(remark, kind="note") + table(("case", "mean Dice", "by class"), listed)


def _drawn(run: RunDirectory, pictures: Pictures) -> Iterator[str]:
    """Overlays of tuning cases, in what room the evaluated ones have left."""
    for path in sorted(run.overlays.rglob("*.png")):
        yield pictures.show(path)
    yield pictures.note()


def _roles(split: Mapping[str, Any]) -> str:
    shown = ("train", "tuning", "test", *(("held_out",) if split.get("held_out") else ()))
    rows = [(role.replace("_", " "), str(len(split[role]))) for role in shown if role in split]
    return table(("role", "cases"), rows, numbers_from=1)


def _findings(findings: Mapping[str, Any]) -> Iterator[str]:
    """What the check of the data has found; of many alike the first few."""
    keys = ("level", "what", "case", "file", "why", "mend")
    records = [tuple(str(one.get(key) or "") for key in keys) for one in findings.get("findings", ())]
    total, shown = Counter(record[:2] for record in records), Counter[tuple[str, ...]]()
    rows = []
    for level, what, case, file, why, mend in records:
        shown[level, what] += 1
        if shown[level, what] <= _ALIKE:
            rows.append((level, what, ", ".join(part for part in (case, file) if part), why, mend))
        elif shown[level, what] == total[level, what]:
            rows.append((level, what, f"{total[level, what] - _ALIKE} more cases", "", ""))
    if rows:
        yield paragraph("Findings of the check of the training and tuning cases:")
        yield table(("", "what", "where", "why", "what mends it"), rows)


def _plan(plan: Mapping[str, Any]) -> str:
    reasons = plan.get("reasons", {})
    rows = [(key, _short(value), str(reasons.get(key, ""))) for key, value in plan.items() if key != "reasons"]
    return table(("", "value", "reason"), rows)


def _timing(series: Mapping[str, Series]) -> str:
    """Median over epochs, since the first one pays for warming up, and the largest."""
    names = {
        "time/epoch_s": ("epoch, s", 1.0),
        "time/train_s": ("of it training, s", 1.0),
        "time/data_wait": ("waiting for data, %", 100.0),
        "time/samples_per_s": ("training samples a second", 1.0),
        "memory/process_gb": ("memory of the process, GB", 1.0),
        "memory/device_gb": ("memory of the device, GB", 1.0),
    }
    rows = []
    for key, (name, scale) in names.items():
        values = sorted(v * scale for v in series[key].values if math.isfinite(v)) if key in series else []
        if values:
            rows.append((name, f"{values[len(values) // 2]:.3g}", f"{values[-1]:.3g}"))
    return table(("", "median", "largest"), rows, numbers_from=1)


def _environment(env: Mapping[str, Any]) -> str:
    packages = env.get("packages", {})
    rows = [(key, _short(value)) for key, value in env.items() if key != "packages"]
    rows += [(name, str(version or "not installed")) for name, version in packages.items()]
    return table(("", ""), rows)


def _short(value: object) -> str:
    """A value as a person reads it: sequences of numbers joined, the rest as JSON."""
    if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        return " x ".join(f"{item:g}" for item in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

"""report.html of a run: everything a reader needs in one file that opens anywhere and loads nothing.

Made from the run folder alone, so it can be made again at any time, also for a run that has not ended. What is
missing there is left out here; a damaged file is named.
"""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from segkit.reporting.curves import Series, curves_png, read_series
from segkit.reporting.html import folded, heading, page, paragraph, picture, section, table
from segkit.runs.directory import RunDirectory
from segkit.runs.files import atomic_write, read_json
from segkit.runs.standing import standing

METRICS: Final = ("dice", "iou", "precision", "recall")
_WORST = 10
_MAX_PICTURES, _MAX_PICTURE_BYTES = 12, 6_000_000
_OPTIMISTIC = "selection score (optimistic)"


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
    documents = {path.stem: _read(path, problems) for path in (run.plan, run.split, run.env)}
    sections = [
        heading(run.name),
        paragraph("Made by segkit. Research software, not a medical device.", kind="note"),
        *(paragraph(problem, kind="warning") for problem in problems),
        section("Run", _run_table(facts)),
        *_evaluations(run, problems),
        section("Tuning cases", _tuning(run)),
        section("Curves", _curves(run)),
        section("Pictures", *_pictures(run)),
        section("Data", _roles(documents["split"])),
        section("Plan", _plan(documents["plan"])),
        section("Time and memory", _timing(read_series(run.timings))),
        section("Environment", _environment(documents["env"])),
        section("Configuration", folded("config.yaml", run.config.read_text(encoding="utf-8"))),
    ]
    target = output or run.report
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(target, page(f"segkit: {run.name}", (part for part in sections if part)))
    return target


def _curves(run: RunDirectory) -> str:
    """The curves as they were drawn last, or drawn now where the journal is newer."""
    drawn, journal = run.curves, run.metrics
    if drawn.is_file() and journal.is_file() and drawn.stat().st_mtime_ns >= journal.stat().st_mtime_ns:
        return picture(drawn.read_bytes())
    series = read_series(run.metrics)
    return picture(curves_png(series)) if series else ""


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


def _evaluations(run: RunDirectory, problems: list[str]) -> Iterator[str]:
    """A section for each evaluation in the folder: classes with intervals, false positives, worst cases."""
    summaries = sorted(
        run.path.glob("evaluation/*/summary.json"), key=lambda p: (p.parent.name != "test", p.parent.name)
    )
    for path in summaries:
        summary = _read(path, problems)
        if not summary.get("classes"):
            continue
        subset = path.parent.name
        rows = [(name, summary["classes"][name]) for name in summary["classes"]]
        rows += [("mean", summary["mean"])] if len(rows) > 1 else []
        yield section(
            f"Evaluation of the {subset} cases",
            paragraph(str(summary["label"]), kind="note" if subset == "test" else "warning")
            if summary.get("label")
            else "",
            paragraph(
                f"{summary['n_cases']} cases of {summary['n_groups']} people. Mean over the cases that have the class, "
                "95 % t interval by person; no interval below 6 people. Dice is F1."
            ),
            table(
                ("class", *METRICS, "n"),
                [(name, *(interval_text(of[m]) for m in METRICS), str(of["dice"]["n"])) for name, of in rows],
                numbers_from=1,
            ),
            _false_positives(summary["classes"]),
            _score_line(summary),
            *_worst(path.parent / "per_case.csv"),
        )


def _score_line(summary: Mapping[str, Any]) -> str:
    score = summary.get("score")
    return paragraph(f"Composite score {score:.4f} = {summary.get('score_formula', '')}") if score is not None else ""


def _false_positives(classes: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (name, f"{of['false_positive_cases']} of {of['healthy_cases']}", str(of["false_positive_voxels"]))
        for name, of in classes.items()
        if of.get("healthy_cases")
    ]
    return table(("class", "predicted in cases without it", "voxels"), rows, numbers_from=1)


def _worst(per_case: Path) -> Iterator[str]:
    worst = worst_cases(_rows(per_case), _WORST)
    if worst:
        yield paragraph(f"The {len(worst)} lowest cases:")
        rows = [(case, f"{mean:.3f}", text) for case, mean, text in worst]
        yield table(("case", "mean Dice", "by class"), rows)


def _tuning(run: RunDirectory) -> str:
    """The tuning cases by the selected checkpoint, under the honest name."""
    rows = _rows(run.per_case)
    if not rows:
        return ""
    listed = [
        (case, f"{mean:.3f}", text) for case, mean, text in worst_cases(rows, len({row["case_id"] for row in rows}))
    ]
    remark = f"{_OPTIMISTIC}: these cases chose the checkpoint, so this is no result."
    return paragraph(remark, kind="note") + table(("case", "mean Dice", "by class"), listed)


def _pictures(run: RunDirectory) -> Iterator[str]:
    """Evaluated cases first, then the tuning cases; as many as the file may hold."""
    found = [*sorted(run.path.glob("evaluation/*/overlays/*.png")), *sorted(run.overlays.rglob("*.png"))]
    size = 0
    for path in found[:_MAX_PICTURES]:
        png = path.read_bytes()
        size += len(png)
        if size > _MAX_PICTURE_BYTES:
            break
        yield picture(png, caption=str(path.relative_to(run.path)))
    if len(found) > _MAX_PICTURES or size > _MAX_PICTURE_BYTES:
        yield paragraph(f"{len(found)} pictures in all, in the run folder.", kind="note")


def _roles(split: Mapping[str, Any]) -> str:
    rows = [(role, str(len(split[role]))) for role in ("train", "tuning", "test") if role in split]
    return table(("role", "cases"), rows, numbers_from=1)


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


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _read(path: Path, problems: list[str]) -> dict[str, Any]:
    """A JSON object; empty where there is no file, empty and named where it is damaged."""
    if not path.is_file():
        return {}
    try:
        value = read_json(path)
    except ValueError as error:
        problems.append(f"{path.name} is damaged: {error}")
        return {}
    return value if isinstance(value, dict) else {}

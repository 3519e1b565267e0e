"""Curves of a run, drawn from its journal: loss, Dice by class, score, learning rate."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from segkit.reporting.png import png_bytes
from segkit.runs.files import atomic_write

TRAINING, VALIDATION, BY_STEP = "#0072b2", "#d55e00", "#9ecae1"
_CLASSES: Final = ("#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#000000")
_MAX_POINTS = 2000
_MAX_CLASSES = len(_CLASSES)


@dataclass
class Series:
    """One key of the journal.

    Args:
        steps: Optimizer steps at which it was measured, growing.
        epochs: Epoch of each, counted from 1.
        values: What was measured; NaN and infinity as such.
    """

    steps: list[int] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


def read_series(journal: Path) -> dict[str, Series]:
    """The journal by key; lines that a kill tore are passed over, and a value measured again replaces the first.

    Args:
        journal: metrics.jsonl or timings.jsonl; may be missing.
    """
    table: dict[str, dict[int, tuple[int, float]]] = {}
    for line in journal.read_bytes().splitlines() if journal.is_file() else ():
        try:
            row = json.loads(line)
            key, step, epoch, value = str(row["key"]), int(row["step"]), int(row["epoch"]), float(row["value"])
        except (ValueError, KeyError, TypeError):
            continue
        table.setdefault(key, {})[step] = (epoch, value)
    series = {}
    for key, rows in table.items():
        ordered = sorted(rows.items())
        series[key] = Series(
            [step for step, _ in ordered], [epoch for _, (epoch, _) in ordered], [value for _, (_, value) in ordered]
        )
    return series


def draw_curves(metrics_jsonl: Path, path: Path) -> None:
    """Draw the curves and write them as PNG.

    Args:
        metrics_jsonl: The run's journal; a missing or empty one gives empty panels that say so.
        path: File to write; its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, curves_png(read_series(metrics_jsonl)))


def curves_png(series: Mapping[str, Series]) -> bytes:
    """The four panels as PNG."""
    figure = Figure(figsize=(12, 7.5), dpi=110)
    # Fixed margins, wide enough for any number: a layout that measures the texts draws everything twice.
    margins = {"left": 0.065, "right": 0.985, "top": 0.95, "bottom": 0.07, "wspace": 0.15, "hspace": 0.28}
    loss, dice, score, rate = figure.subplots(2, 2, gridspec_kw=margins).flat
    per_epoch = steps_per_epoch(series)
    _panel(loss, "Loss", "configured loss")
    _line(loss, series.get("train/loss"), per_epoch, color=BY_STEP, linewidth=0.8, label="training, by step")
    _line(loss, series.get("train/loss_epoch"), None, color=TRAINING, linewidth=1.8, label="training, epoch")
    _line(loss, series.get("val/loss"), None, color=VALIDATION, marker=".", label="validation, whole images")

    _panel(dice, "Dice", "mean over cases, then classes")
    _line(dice, series.get("train/dice"), None, color=TRAINING, linewidth=1.8, label="training patches, augmented")
    _line(dice, series.get("val/dice"), None, color=VALIDATION, linewidth=1.8, marker=".", label="validation")
    for colour, (name, values) in zip(_CLASSES, _by_class(series), strict=False):
        _line(dice, values, None, color=colour, linewidth=1.0, linestyle="--", label=f"validation, {name}")
    _unit_interval(dice)

    _panel(score, "Selection score", "val/score, optimistic: it chooses the checkpoint")
    _line(score, series.get("val/score"), None, color=VALIDATION, linewidth=1.8, marker=".", label="val/score")
    _mark_best(score, series.get("val/score"))
    _unit_interval(score)

    _panel(rate, "Learning rate", "")
    _line(rate, series.get("lr"), per_epoch, color=TRAINING, linewidth=1.4, label="learning rate")
    for axes in (loss, dice, score, rate):
        if axes.get_lines():
            axes.legend(fontsize=8, frameon=False)
        else:
            axes.text(0.5, 0.5, "nothing measured yet", transform=axes.transAxes, ha="center", color="0.5")
    return png_bytes(figure)


def steps_per_epoch(series: Mapping[str, Series]) -> float:
    """Optimizer steps an epoch, from the last value that was measured at the end of one; 1 where none was."""
    ends = [
        (values.steps[-1], values.epochs[-1])
        for key in ("train/loss_epoch", "train/dice", "val/score")
        if (values := series.get(key)) is not None
    ]
    step, epoch = max(ends, default=(1, 1))
    return max(step / max(epoch, 1), 1.0)


def best_epoch(series: Mapping[str, Series], key: str = "val/score") -> tuple[int, float] | None:
    """Epoch and value of the maximum, the earliest among equals; None where nothing finite was measured."""
    values = series.get(key)
    finite = [(v, -e) for v, e in zip(values.values, values.epochs, strict=True) if math.isfinite(v)] if values else []
    if not finite:
        return None
    value, epoch = max(finite)
    return -epoch, value


def _panel(axes: Axes, title: str, remark: str) -> None:
    axes.set_title(title, fontsize=12, loc="left", fontweight="bold")
    axes.set_title(remark, fontsize=8, loc="right", color="0.4")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _line(axes: Axes, values: Series | None, per_epoch: float | None, **style: str | float) -> None:
    """Draw a series over epochs: at their ends, or where its steps lie if `per_epoch` is given."""
    if values is None:
        return
    x: Sequence[float] = values.epochs if per_epoch is None else [step / per_epoch for step in values.steps]
    every = max(1, math.ceil(len(x) / _MAX_POINTS))
    axes.plot(x[::every], values.values[::every], **style)  # type: ignore[arg-type]


def _by_class(series: Mapping[str, Series]) -> list[tuple[str, Series]]:
    """Validation Dice by class, where there are several but not too many."""
    prefix = "val/dice/"
    classes = [(key.removeprefix(prefix), values) for key, values in series.items() if key.startswith(prefix)]
    return classes if 1 < len(classes) <= _MAX_CLASSES else []


def _unit_interval(axes: Axes) -> None:
    """[0, 1] with a little room: a curve that only looks steep because the axis is short misleads."""
    axes.set_ylim(-0.02, 1.02)


def _mark_best(axes: Axes, values: Series | None) -> None:
    best = best_epoch({"val/score": values} if values else {})
    if best is not None:
        epoch, value = best
        axes.plot([epoch], [value], marker="*", markersize=13, color="#000000", linestyle="none")
        text = f"{value:.3f} in epoch {epoch}"
        axes.annotate(text, (epoch, value), xytext=(0, -22), textcoords="offset points", ha="center", fontsize=9)

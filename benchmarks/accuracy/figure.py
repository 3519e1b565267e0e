"""Dice against minutes, with intervals."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.accuracy.contenders import MIRRORED
from benchmarks.accuracy.results import FLOORS, LABELS, OURS, Point, signed

# An opaque, nearly white card with dark text reads the same on a light and on a dark page.
_CARD, _INK, _QUIET = "#fbfbfa", "#1f2328", "#6e7781"
_COLOURS = {OURS: "#0b62c4", "peer-same-chance": "#c4570b", "peer-default": "#6e7781"}
_MARKS = {OURS: "o", "peer-same-chance": "s", "peer-default": "D"}
_DODGE, _ASIDE = 0.016, 0.02
_FAR = 0.06
"""A contender this far below the best at the same budget would squeeze the others: it gets a panel of its own."""


def draw(found: Sequence[Point], path: Path) -> None:
    """Draw the figure of the README.

    Args:
        found: What was measured; of each peer the better of its two predictions is drawn.
        path: PNG file.
    """
    best = _best(found)
    top = max(point.dice.mean for point in best)
    near = [point for point in best if min(p.dice.mean for p in best if p.name == point.name) > top - _FAR]
    with mpl.rc_context({"font.size": 10, "text.color": _INK, "axes.labelcolor": _INK, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(8.6, 4.1), dpi=150, facecolor=_CARD, layout="constrained")
        shown = [near] if len(near) == len(best) else [best, near]
        panels = figure.subplots(1, len(shown), squeeze=False)[0]
        for axes, points in zip(panels, shown, strict=True):
            _panel(axes, points, label_budgets=points is shown[-1])
        panels[0].set_ylabel("foreground Dice, test people")
        if len(shown) == 2:
            panels[0].set_title("all contenders", loc="left", fontsize=10, color=_QUIET)
            panels[1].set_title("the closest, enlarged", loc="left", fontsize=10, color=_QUIET)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", frameon=False, ncols=3, fontsize=9.5)
        figure.supxlabel(_caption(best), fontsize=8.5, color=_QUIET)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def _best(found: Sequence[Point]) -> list[Point]:
    """One prediction a contender: the one that is better at most budgets."""
    kept: list[Point] = []
    for name in _COLOURS:
        kinds = [[p for p in found if p.name == kind] for kind in (name, name + MIRRORED)]
        kept += max(kinds, key=lambda kind: sum(p.dice.mean for p in kind))
    return kept


def _panel(axes: Axes, points: Sequence[Point], *, label_budgets: bool) -> None:
    names = list(dict.fromkeys(point.name for point in points))
    most = max(point.minutes for point in points)
    for place, name in enumerate(names):
        mine = sorted((p for p in points if p.name == name), key=lambda p: p.minutes)
        base = name.removesuffix(MIRRORED)
        shift = _DODGE * most * (place - (len(names) - 1) / 2)
        x = [point.minutes + shift for point in mine]
        y = [point.dice.mean for point in mine]
        errors = [[p.dice.mean - p.dice.low for p in mine], [p.dice.high - p.dice.mean for p in mine]]
        style: dict[str, Any] = {"color": _COLOURS[base], "marker": _MARKS[base], "markersize": 6.5, "linewidth": 1.8}
        axes.errorbar(x, y, yerr=errors, capsize=4, elinewidth=1.4, label=LABELS[name], zorder=3, **style)
        for centre, point in zip(x, mine, strict=True):
            values = point.seeds.means
            beside = [centre + _ASIDE * most] * len(values)
            axes.scatter(beside, values, s=10, color=_CARD, edgecolors=_COLOURS[base], linewidths=1, zorder=4)
    if label_budgets:
        for budget, floor in FLOORS.items():
            if any(point.budget == budget for point in points):
                minutes = float(budget[:-1])
                axes.hlines(floor, minutes - 0.7, minutes + 0.7, color=_INK, linewidth=1, linestyle=":", zorder=2)
                axes.annotate(f"{floor}", (minutes + 0.75, floor), va="center", fontsize=8.5, color=_INK)
    axes.set_xlim(0, most * 1.18)
    axes.set_xlabel("minutes of training, two cores")
    axes.set_facecolor(_CARD)
    axes.grid(axis="y", color="#d8dee4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#afb8c1")


def _caption(best: Sequence[Point]) -> str:
    """What the marks are, and the paired differences to the peer with the same chance."""
    dice = best[0].dice
    text = f"Mean and 95 % interval over {dice.n_groups} people ({dice.n} cases); small circles: the seeds."
    gains = [p for p in best if p.name.startswith("peer-same-chance") and p.gain is not None]
    if gains:
        each = "; ".join(f"{point.budget}: {signed(point.gain)}" for point in gains if point.gain is not None)
        text += f"\nPaired difference, segkit less nnU-Net's classes with the same chance: {each}"
    return text

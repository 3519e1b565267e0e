"""Drawings inside a document: points and lines over a square of shares, as text that stays sharp and can be searched.

A square reaches from `low` to 1 on both axes, 0 where nothing else is said: `corner_of` finds one for crowded points.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

BEFORE: Final = "#d55e00"
AFTER: Final = "#0072b2"
"""Told apart by the colour-blind; what is drawn in the first is dashed besides."""

_SIDE, _LEFT, _TOP, _RIGHT, _BOTTOM = 220.0, 56.0, 28.0, 14.0, 44.0
_QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)
_CORNERS = (0.8, 0.5, 0.0)
_GREY, _INK = "#d8d8d8", "#333333"
Point = tuple[float, float]


def corner_of(points: Iterable[Point]) -> float:
    """The highest of a few round values below which no coordinate of the points lies."""
    lowest = min((value for point in points for value in point), default=0.0)
    return next((corner for corner in _CORNERS if corner <= lowest), 0.0)


def unit_square(marks: Iterable[str], *, title: str, x: str, y: str, low: float = 0.0) -> str:
    """A plot of two shares against one another, with the diagonal on which they are equal.

    Args:
        marks: What `line` and `dots` give for the same `low`, the lowest first.
        title: Stands above.
        x: Names the horizontal axis.
        y: Names the vertical one.
        low: Where both axes begin.
    """
    width, height = _LEFT + _SIDE + _RIGHT, _TOP + _SIDE + _BOTTOM
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    style = 'font-family="system-ui, sans-serif" font-size="11"'
    grid = []
    for part in _QUARTERS:
        h, v = _place((part, part))
        tick = f"{low + (1 - low) * part:.4g}"
        grid += [
            _stroke((part, 0.0), (part, 1.0), _GREY),
            _stroke((0.0, part), (1.0, part), _GREY),
            _text(h, _TOP + _SIDE + 15, tick, anchor="middle"),
            _text(_LEFT - 6, v + 4, tick, anchor="end"),
        ]
    middle = _LEFT + _SIDE / 2
    beside = f"translate(12 {_number(_TOP + _SIDE / 2)}) rotate(-90)"
    return "\n".join(
        [
            f'<svg role="img" {size} {style}>',
            f"<title>{escape(title)}</title>",
            *grid,
            _stroke((0.0, 0.0), (1.0, 1.0), "#888888"),
            *marks,
            _text(middle, 16.0, title, anchor="middle", weight="bold"),
            _text(middle, height - 8, x, anchor="middle"),
            f'<g transform="{beside}">{_text(0.0, 0.0, y, anchor="middle")}</g>',
            "</svg>",
        ]
    )


def line(points: Sequence[Point], *, colour: str, dashed: bool = False, low: float = 0.0) -> str:
    """A line through points of the square, from first to last."""
    places = " ".join(f"{_number(h)},{_number(v)}" for h, v in (_place(_share(point, low)) for point in points))
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.6"{dashes}/>'


def dots(
    points: Sequence[Point], *, colour: str, sizes: Sequence[float] = (), names: Sequence[str] = (), low: float = 0.0
) -> str:
    """Points of the square.

    Args:
        points: Where.
        colour: Of all of them.
        sizes: Share of each, 0 to 1, which its area stands for; none: all small.
        names: What each is called when a reader points at it.
        low: Where both axes begin.
    """
    shapes = []
    for index, point in enumerate(points):
        h, v = _place(_share(point, low))
        radius = 1.5 + 10.0 * sizes[index] ** 0.5 if sizes else 3.0
        name = f"<title>{escape(names[index])}</title>" if names else ""
        place = f'cx="{_number(h)}" cy="{_number(v)}" r="{_number(radius)}"'
        shapes.append(f'<circle {place} fill="{colour}" fill-opacity="0.6">{name}</circle>')
    return "\n".join(shapes)


def _share(point: Point, low: float) -> Point:
    """From the axes to the unit square."""
    return (point[0] - low) / (1 - low), (point[1] - low) / (1 - low)


def _place(point: Point) -> Point:
    """From the unit square, y upwards, to the drawing, y downwards."""
    return _LEFT + _SIDE * point[0], _TOP + _SIDE * (1.0 - point[1])


def _stroke(start: Point, end: Point, colour: str) -> str:
    (x1, y1), (x2, y2) = _place(start), _place(end)
    ends = f'x1="{_number(x1)}" y1="{_number(y1)}" x2="{_number(x2)}" y2="{_number(y2)}"'
    return f'<line {ends} stroke="{colour}" stroke-width="1"/>'


def _text(x: float, y: float, text: str, *, anchor: str, weight: str = "normal") -> str:
    place = f'x="{_number(x)}" y="{_number(y)}" text-anchor="{anchor}" font-weight="{weight}" fill="{_INK}"'
    return f"<text {place}>{escape(text)}</text>"


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")

"""Points lie where they say: the plot's own ticks are the measure."""

import re
from xml.etree import ElementTree

import pytest

from segkit.reporting.svg import corner_of, dots, line, unit_square

SVG = "{http://www.w3.org/2000/svg}"


def parsed(text):
    return ElementTree.fromstring(text.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def axes(root):
    """x of 0 and 1, y of 0 and 1: the ends of the diagonal."""
    diagonal = next(
        each
        for each in root.iter(f"{SVG}line")
        if each.get("x1") != each.get("x2") and each.get("y1") != each.get("y2")
    )
    return [float(diagonal.get(name)) for name in ("x1", "x2", "y1", "y2")]


@pytest.mark.parametrize("point", [(0.0, 0.0), (1.0, 1.0), (0.25, 0.75), (0.5, 0.125)])
def test_a_dot_lies_at_its_share_of_both_axes_and_up_is_more(point):
    root = parsed(unit_square([dots([point], colour="red")], title="t", x="x", y="y"))
    left, right, bottom, top = axes(root)
    (circle,) = root.iter(f"{SVG}circle")
    assert (float(circle.get("cx")) - left) / (right - left) == pytest.approx(point[0])
    assert (float(circle.get("cy")) - bottom) / (top - bottom) == pytest.approx(point[1])
    assert top < bottom


def test_axes_that_begin_higher_spread_the_points():
    root = parsed(unit_square([dots([(0.75, 0.5)], colour="red", low=0.5)], title="t", x="x", y="y", low=0.5))
    left, right, bottom, _ = axes(root)
    (circle,) = root.iter(f"{SVG}circle")
    assert (float(circle.get("cx")) - left) / (right - left) == pytest.approx(0.5)
    assert float(circle.get("cy")) == pytest.approx(bottom)
    assert {"0.5", "0.625", "0.75", "0.875", "1"} <= set(root.itertext())


@pytest.mark.parametrize(
    ("points", "low"),
    [([(0.9, 0.81)], 0.8), ([(0.9, 0.79)], 0.5), ([(0.1, 0.9)], 0.0), ([(-0.1, 1.0)], 0.0), ([], 0.0)],
)
def test_a_corner_leaves_no_point_out(points, low):
    assert corner_of(points) == low


def test_the_area_of_a_dot_grows_with_its_share():
    text = dots([(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)], colour="red", sizes=[0.0, 0.25, 1.0])
    radii = [float(r) for r in re.findall(r' r="([\d.]+)"', text)]
    assert radii[2] - radii[0] == pytest.approx(2 * (radii[1] - radii[0]))


def test_a_line_goes_through_its_points():
    root = parsed(unit_square([line([(0.0, 0.0), (1.0, 1.0)], colour="red", dashed=True)], title="t", x="x", y="y"))
    left, right, bottom, top = axes(root)
    (polyline,) = root.iter(f"{SVG}polyline")
    assert [float(value) for value in re.split("[ ,]", polyline.get("points"))] == [left, bottom, right, top]


def test_names_are_texts_and_never_markup():
    evil = '<script>"&'
    text = unit_square([dots([(0.0, 0.0)], colour="red", names=[evil])], title=evil, x=evil, y=evil)
    assert "<script" not in text
    assert evil in "".join(parsed(text).itertext())

"""segkit's surfaces beside the published definition: written out for boxes, and as DeepMind's package computes it.

What the package said of the pairs of masks is stored (make_surface_distance.py); it is not needed here.
"""

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from tests.reference.agreement_masks import BY_NAME, CUBES, FLAT, PAIRS, THICK, box
from tests.reference.stored_results import read

from segkit.metrics.surface import SurfaceSettings, surface_distances

TOLERANCES = (0.45, 1.1, 2.3)
STORED = read(Path(__file__).with_name("surface_distance.json"))


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_numbers_of_the_package(pair):
    """The same elements, areas, border and percentile. Its two mean distances are one here, by area of both sides."""
    theirs = STORED[pair.name]
    sides = {"spacing": pair.spacing}
    found = {t: surface_distances(pair.reference, pair.prediction, **sides, settings=settings(t)) for t in TOLERANCES}
    whole = surface_distances(pair.reference, pair.prediction, **sides, settings=settings(1.0, percentile=100.0))
    assert whole.hd == approx(theirs["hd100"] if whole.found != "neither" else math.nan)
    assert found[1.1].hd == approx(theirs["hd95"] if whole.found != "neither" else math.nan)
    for t in TOLERANCES:
        assert found[t].nsd == approx(theirs[f"nsd_{t}"])
    if whole.found == "both":
        of_reference, of_prediction = theirs["area_of_reference"], theirs["area_of_prediction"]
        total = theirs["from_reference"] * of_reference + theirs["from_prediction"] * of_prediction
        assert found[1.1].assd == approx(total / (of_reference + of_prediction))


@pytest.mark.parametrize("name", ["missed", "invented", "neither"])
def test_empty_sides(name):
    """Its mean from an empty side is NaN, the one towards it infinite; of two empty ones its distance is infinite."""
    theirs = STORED[name]
    pair = BY_NAME[name]
    found = surface_distances(pair.reference, pair.prediction, spacing=pair.spacing)
    assert theirs["hd95"] == math.inf
    assert math.isnan(found.hd) == (name == "neither")
    means = [theirs["from_reference"], theirs["from_prediction"]]
    if name == "neither":
        assert all(map(math.isnan, means))
    else:
        assert found.assd == math.inf
        assert sorted(map(math.isnan, means)) == [False, True]


# ------------------------------------------------------------------- the definition, written out for boxes
#
# Between 2^D voxels lies an element where some of them are inside and some not. Of a box, one inside is a corner, cut
# by the triangle through the middles of three edges; two are an edge, cut by a rectangle; four are a face.


def published(mask, spacing):
    """Places and areas (lengths in the plane) of the elements of boxes that lie apart, cell by cell."""
    padded, axes = np.pad(mask, 1), mask.ndim
    places, areas = [], []
    for cell in product(*(range(n + 1) for n in mask.shape)):
        inside = [corner for corner in product((0, 1), repeat=axes) if padded[tuple(np.add(cell, corner))]]
        if 0 < len(inside) < 2**axes:
            places.append((np.array(cell) - 0.5) * spacing)
            areas.append(area_of(inside, spacing))
    return np.array(places), np.array(areas)


def area_of(inside, spacing):
    # Axes along which both ends of the cell are inside: the element runs on along these.
    along = [axis for axis in range(len(spacing)) if len({corner[axis] for corner in inside}) == 2]
    assert len(inside) == 2 ** len(along), "no corner, edge or face of a box"
    length = math.prod(spacing[axis] for axis in along)
    across = [s for axis, s in enumerate(spacing) if axis not in along]
    if len(across) == 1:
        return length
    if len(across) == 2:
        return length * math.hypot(*across) / 2
    a, b, c = across
    return math.hypot(a * b, b * c, a * c) / 8


def boxes(seed, size):
    """Two boxes with room between them."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, dtype=bool)
    for low, high in ((0, size[0] // 2 - 1), (size[0] // 2 + 1, size[0])):
        start = [int(rng.integers(low, high - 1)), *(int(rng.integers(0, n - 2)) for n in size[1:])]
        stop = [min(high, start[0] + int(rng.integers(1, 6)))]
        stop += [min(n, s + int(rng.integers(1, 6))) for s, n in zip(start[1:], size[1:], strict=True)]
        mask |= box(*zip(start, stop, strict=True), size=size)
    return mask


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spacing", [CUBES, THICK, FLAT])
def test_the_published_definition(seed, spacing):
    """HD95 of A to B: the smallest d within which 95 % of the area of A lies. NSD: the share of all area within it."""
    size = (14, 9, 8)[: len(spacing)]
    reference, prediction = boxes(seed, size), boxes(100 + seed, size)
    (r, wr), (p, wp) = published(reference, spacing), published(prediction, spacing)
    apart = np.sqrt(((r[:, None] - p[None]) ** 2).sum(axis=-1))
    dr, dp = apart.min(axis=1), apart.min(axis=0)
    directed = [
        min(d for d in np.unique(distance) if weight[distance <= d].sum() >= 0.95 * weight.sum() * (1 - 1e-9))
        for distance, weight in ((dr, wr), (dp, wp))
    ]
    found = surface_distances(reference, prediction, spacing=spacing, settings=settings(1.1))
    assert found.hd == approx(max(directed))
    assert found.assd == approx(((dr * wr).sum() + (dp * wp).sum()) / (wr.sum() + wp.sum()))
    assert found.nsd == approx((wr[dr <= 1.1].sum() + wp[dp <= 1.1].sum()) / (wr.sum() + wp.sum()))


def settings(tolerance, **keys):
    return SurfaceSettings(tolerance_mm=tolerance, **keys)


def approx(value):
    return pytest.approx(value, rel=1e-6, abs=1e-6, nan_ok=True)

"""Surface distances against closed forms, a slow definition, MONAI where the convention is the same."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_surface_dice
from numpy.typing import NDArray

from segkit.metrics.surface import SurfaceSettings, length_text, surface_distances, weighted_quantile
from segkit.ops.surface_elements import surface_elements

Mask = NDArray[np.bool_]


def slab(start: int, stop: int, axis: int = 0, size: tuple[int, ...] = (40, 12, 10)) -> Mask:
    mask = np.zeros(size, dtype=bool)
    mask[tuple(slice(start, stop) if a == axis else slice(None) for a in range(len(size)))] = True
    return mask


def ball(radius: float, centre: tuple[float, ...], size: tuple[int, ...], spacing: tuple[float, ...]) -> Mask:
    axes = np.meshgrid(*[np.arange(n) * s for n, s in zip(size, spacing, strict=True)], indexing="ij")
    return np.sqrt(sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True))) <= radius


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shift", [1, 3])
def test_a_box_that_grows_on_one_face(axis: int, shift: int) -> None:
    """The face moves by `shift` voxels; the other five stay."""
    spacing = (0.5, 2.0, 1.5)
    reference = np.zeros((30, 30, 30), dtype=bool)
    reference[8:20, 8:20, 8:20] = True
    prediction = reference.copy()
    grown = tuple(slice(8, 20 + shift) if a == axis else slice(8, 20) for a in range(3))
    prediction[grown] = True
    found = surface_distances(reference, prediction, spacing=spacing, settings=SurfaceSettings(percentile=100.0))
    assert found.hd == pytest.approx(shift * spacing[axis])
    assert found.found == "both"


def test_equal_masks() -> None:
    mask = ball(6.0, (10.0, 10.0, 10.0), (20, 20, 20), (1.0, 1.0, 1.0))
    found = surface_distances(mask, mask, spacing=(1.0, 1.0, 1.0), settings=SurfaceSettings(tolerance_mm=0.0))
    assert (found.hd, found.assd, found.nsd) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.5, 1.0)])
def test_balls_within_one_another(spacing: tuple[float, float, float]) -> None:
    """Concentric balls of radius 8 and 12 mm: every surface distance is 4 mm to within a voxel."""
    size = tuple(round(32 / s) for s in spacing)
    small, large = (ball(r, (16.0, 16.0, 16.0), size, spacing) for r in (8.0, 12.0))
    found = surface_distances(small, large, spacing=spacing)
    assert found.hd == pytest.approx(4.0, abs=max(spacing))
    assert found.assd == pytest.approx(4.0, abs=max(spacing) / 2)
    assert found.nsd == 0.0
    wide = SurfaceSettings(tolerance_mm=4.0 + 1.5 * max(spacing))
    assert surface_distances(small, large, spacing=spacing, settings=wide).nsd == 1.0


def test_one_side_empty_is_never_dropped() -> None:
    full, empty = slab(3, 9), np.zeros((40, 12, 10), dtype=bool)
    missed = surface_distances(full, empty, spacing=(1.0, 1.0, 1.0))
    assert (missed.hd, missed.assd, missed.nsd, missed.found) == (math.inf, math.inf, 0.0, "missed")
    invented = surface_distances(empty, full, spacing=(1.0, 1.0, 1.0))
    assert (invented.hd, invented.assd, invented.nsd, invented.found) == (math.inf, math.inf, 0.0, "invented")
    neither = surface_distances(empty, empty, spacing=(1.0, 1.0, 1.0))
    assert neither.found == "neither"
    assert all(math.isnan(value) for value in (neither.hd, neither.assd, neither.nsd))


masks = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).random((2, 6, 7, 5)) < 0.35)


@settings(max_examples=40, deadline=None)
@given(masks, st.sampled_from([(1.0, 1.0, 1.0), (0.7, 1.2, 3.0)]), st.floats(0.0, 3.0))
def test_equals_the_slow_definition(pair: NDArray[np.bool_], spacing: tuple[float, float, float], tol: float) -> None:
    reference, prediction = pair
    if not reference.any() or not prediction.any():
        return
    (r, wr), (p, wp) = surface_elements(reference, spacing), surface_elements(prediction, spacing)
    table = np.sqrt(((r[:, None] - p[None]) ** 2).sum(axis=-1))
    dr, dp = table.min(axis=1), table.min(axis=0)
    found = surface_distances(reference, prediction, spacing=spacing, settings=SurfaceSettings(tolerance_mm=tol))
    assert found.assd == pytest.approx((np.sum(dr * wr) + np.sum(dp * wp)) / (wr.sum() + wp.sum()), rel=1e-9)
    right = wr[dr <= tol].sum() + wp[dp <= tol].sum()
    near = np.isclose(dr, tol).any() or np.isclose(dp, tol).any()
    assert near or found.nsd == pytest.approx(right / (wr.sum() + wp.sum()), rel=1e-9)
    assert found.hd == pytest.approx(max(slow_quantile(dr, wr, 0.95), slow_quantile(dp, wp, 0.95)), rel=1e-9)
    pooled = SurfaceSettings(hausdorff="pooled")
    both = slow_quantile(np.concatenate([dr, dp]), np.concatenate([wr, wp]), 0.95)
    assert surface_distances(reference, prediction, spacing=spacing, settings=pooled).hd == pytest.approx(
        both, rel=1e-9
    )


def slow_quantile(values: NDArray[np.float64], weights: NDArray[np.float64], share: float) -> float:
    return min(v for v in values if weights[values <= v].sum() >= share * weights.sum() * (1 - 1e-9))


@settings(max_examples=25, deadline=None)
@given(masks)
def test_symmetric(pair: NDArray[np.bool_]) -> None:
    one, other = pair
    a = surface_distances(one, other, spacing=(1.0, 2.0, 0.5))
    b = surface_distances(other, one, spacing=(1.0, 2.0, 0.5))
    assert a.hd == pytest.approx(b.hd, nan_ok=True)
    assert a.assd == pytest.approx(b.assd, nan_ok=True)
    assert a.nsd == pytest.approx(b.nsd, nan_ok=True)


def test_distances_are_in_mm() -> None:
    pair = np.random.default_rng(3).random((2, 8, 8, 8)) < 0.3
    one = surface_distances(*pair, spacing=(1.0, 2.0, 3.0), settings=SurfaceSettings(tolerance_mm=1.0))
    ten = surface_distances(*pair, spacing=(10.0, 20.0, 30.0), settings=SurfaceSettings(tolerance_mm=10.0))
    assert ten.hd == pytest.approx(10 * one.hd)
    assert ten.assd == pytest.approx(10 * one.assd)
    assert ten.nsd == pytest.approx(one.nsd)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 1.1, 3.0), (1.0, 2.0)])
@pytest.mark.parametrize("tolerance", [0.4, 1.0, 2.5])
def test_nsd_equals_monai(spacing: tuple[float, ...], tolerance: float) -> None:
    """MONAI's subvoxel NSD follows the same definition."""
    rng = np.random.default_rng(11)
    size = (12, 13, 11)[: len(spacing)]
    centre = tuple(n * s / 2 for n, s in zip(size, spacing, strict=True))
    reference = ball(4.0, centre, size, spacing)
    prediction = reference ^ (rng.random(size) < 0.05)
    reference, prediction = np.pad(reference, 2), np.pad(prediction, 2)
    onehot = [torch.from_numpy(m)[None, None].float() for m in (prediction, reference)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = compute_surface_dice(
            *onehot, class_thresholds=[tolerance], include_background=True, spacing=spacing, use_subvoxels=True
        )
    found = surface_distances(reference, prediction, spacing=spacing, settings=SurfaceSettings(tolerance_mm=tolerance))
    assert found.nsd == pytest.approx(float(expected), abs=1e-6)


def test_removing_a_prediction_never_improves() -> None:
    reference = ball(5.0, (10.0, 10.0, 10.0), (20, 20, 20), (1.0, 1.0, 1.0))
    there = surface_distances(reference, np.roll(reference, 3, axis=0), spacing=(1.0, 1.0, 1.0))
    gone = surface_distances(reference, np.zeros_like(reference), spacing=(1.0, 1.0, 1.0))
    assert gone.hd > there.hd
    assert gone.assd > there.assd
    assert gone.nsd <= there.nsd


def test_weighted_quantile_by_hand() -> None:
    values, weights = np.array([3.0, 1.0, 2.0]), np.array([1.0, 2.0, 1.0])
    assert weighted_quantile(values, weights, 0.5) == 1.0
    assert weighted_quantile(values, weights, 0.51) == 2.0
    assert weighted_quantile(values, weights, 0.75) == 2.0
    assert weighted_quantile(values, weights, 1.0) == 3.0


def test_voxel_weighting_counts_elements() -> None:
    pair = np.random.default_rng(9).random((2, 8, 9, 7)) < 0.3
    found = surface_distances(*pair, spacing=(1.0, 1.0, 4.0), settings=SurfaceSettings(weighting="voxel"))
    (r, _), (p, _) = surface_elements(pair[0], (1.0, 1.0, 4.0)), surface_elements(pair[1], (1.0, 1.0, 4.0))
    table = np.sqrt(((r[:, None] - p[None]) ** 2).sum(axis=-1))
    distances = np.concatenate([table.min(axis=1), table.min(axis=0)])
    assert found.assd == pytest.approx(distances.mean())
    assert found.nsd == pytest.approx((distances <= 1.0).mean())


def test_refusals() -> None:
    with pytest.raises(ValueError, match="shape"):
        surface_distances(np.ones((2, 3), bool), np.ones((3, 2), bool), spacing=(1.0, 1.0))
    with pytest.raises(ValueError, match="tolerance_mm"):
        SurfaceSettings(tolerance_mm=-1.0)
    with pytest.raises(ValueError, match="percentile"):
        SurfaceSettings(percentile=0.0)


def test_the_rule_names_every_convention() -> None:
    rule = SurfaceSettings(tolerance_mm=2.0, hausdorff="pooled", weighting="voxel")
    for part in ("2 mm", "pooled", "each counting 1", "HD95", "infinite"):
        assert part in rule.rule()


@pytest.mark.parametrize(
    ("tolerance", "unit", "text"),
    [(2.0, "pixel", "2 pixels"), (1.0, "pixel", "1 pixel"), (0.0, "pixel", "0 pixels"), (1.5, "mm", "1.5 mm")],
)
def test_the_rule_is_in_the_unit_of_the_image(tolerance: float, unit: str, text: str) -> None:
    assert f"NSD within {text};" in SurfaceSettings(tolerance_mm=tolerance).rule(unit)
    assert length_text(tolerance, unit) == text

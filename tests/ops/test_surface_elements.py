"""Areas against closed forms, places against hand counts, MONAI's on the same masks."""

import numpy as np
import pytest
import torch
from monai.metrics.utils import get_mask_edges

from segkit.ops.surface_elements import surface_elements


def test_one_voxel_has_eight_corners_around_it() -> None:
    mask = np.zeros((5, 5, 5), dtype=bool)
    mask[2, 2, 2] = True
    points, area = surface_elements(mask, (1.0, 2.0, 3.0))
    assert len(points) == 8
    corners = np.array([[x, y, z] for x in (1.5, 2.5) for y in (1.5, 2.5) for z in (1.5, 2.5)])
    assert np.allclose(points, corners * [1.0, 2.0, 3.0])
    # Each corner is cut by one triangle through the middles of the three edges: half of |(yz, xz, xy)| / 4.
    assert np.allclose(area, 0.125 * np.linalg.norm([2 * 3, 1 * 3, 1 * 2]))


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 3.0)])
def test_one_pixel(spacing: tuple[float, float]) -> None:
    mask = np.zeros((3, 4), dtype=bool)
    mask[1, 2] = True
    points, length = surface_elements(mask, spacing)
    assert np.allclose(points, np.array([[0.5, 1.5], [0.5, 2.5], [1.5, 1.5], [1.5, 2.5]]) * spacing)
    assert np.allclose(length, 0.5 * np.hypot(*spacing))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.3, 4.0)])
def test_faces_of_a_cuboid_have_their_area(axis: int, spacing: tuple[float, float, float]) -> None:
    mask = np.zeros((14, 15, 16), dtype=bool)
    mask[3:11, 4:10, 5:12] = True
    points, area = surface_elements(mask, spacing)
    others = [a for a in range(3) if a != axis]
    low = np.isclose(points[:, axis], (3.0, 4.0, 5.0)[axis] * spacing[axis] - spacing[axis] / 2)
    starts, stops = np.array([3, 4, 5]), np.array([11, 10, 12])
    inner = low.copy()
    for other in others:
        inner &= points[:, other] > starts[other] * spacing[other] - spacing[other] / 4
        inner &= points[:, other] < (stops[other] - 1) * spacing[other] + spacing[other] / 4
    cells = [stops[o] - starts[o] - 1 for o in others]
    assert inner.sum() == np.prod(cells)
    assert np.allclose(area[inner], spacing[others[0]] * spacing[others[1]])


def test_a_sphere_has_its_area() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(-30, 31)] * 3, indexing="ij"), axis=-1)
    mask = np.square(grid).sum(axis=-1) <= 25.0**2
    _, area = surface_elements(mask, (1.0, 1.0, 1.0))
    # The faces of the marching cubes are tilted to the true surface: a known excess below a tenth.
    assert 1.0 < area.sum() / (4 * np.pi * 25.0**2) < 1.1


def test_the_border_is_a_surface() -> None:
    _, inside = surface_elements(np.pad(np.ones((3, 4, 5), dtype=bool), 2), (1.0, 1.0, 2.0))
    points, at_border = surface_elements(np.ones((3, 4, 5), dtype=bool), (1.0, 1.0, 2.0))
    assert at_border.sum() == pytest.approx(inside.sum(), rel=1e-12)
    assert points.min() == -1.0


def test_empty() -> None:
    points, area = surface_elements(np.zeros((3, 4), dtype=bool), (1.0, 1.0))
    assert points.shape == (0, 2)
    assert area.shape == (0,)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 1.1, 3.0), (1.0, 1.0), (0.3, 2.0)])
def test_equals_monai(spacing: tuple[float, ...]) -> None:
    rng = np.random.default_rng(5)
    mask = np.pad(rng.random((7, 8, 9)[: len(spacing)]) < 0.4, 1)
    points, area = surface_elements(mask, spacing)
    edges, _, areas, _ = get_mask_edges(torch.from_numpy(mask), torch.from_numpy(mask), crop=False, spacing=spacing)
    # Its cell 0 lies between the voxels 0 and 1.
    expected = (np.argwhere(edges.numpy()) + 0.5) * spacing
    assert np.allclose(points, expected, atol=1e-12)
    assert np.allclose(area, areas[edges].numpy(), rtol=1e-6)


def test_refuses_what_has_no_surface_here() -> None:
    with pytest.raises(ValueError, match="two or three axes"):
        surface_elements(np.ones(4, dtype=bool), (1.0,))
    with pytest.raises(ValueError, match="spacing"):
        surface_elements(np.ones((4, 4), dtype=bool), (1.0, 1.0, 1.0))

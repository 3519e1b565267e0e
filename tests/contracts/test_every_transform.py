"""What every intensity transform of every file in configs/augmentation must hold."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from segkit.ops.keyed_random import generator

CONFIGS = Path(__file__).parents[2] / "configs" / "augmentation"


def specifications() -> list[Any]:
    """(file, name, settings) of every intensity transform."""
    found = []
    for path in sorted(CONFIGS.glob("*.yaml")):
        for name, settings in (yaml.safe_load(path.read_text()).get("intensity") or {}).items():
            found.append(pytest.param(settings, id=f"{path.stem}-{name}"))
    return found


def build(settings: dict[str, Any], **changes: float) -> Any:
    module, name = settings["_target_"].rsplit(".", 1)
    arguments = {key: value for key, value in settings.items() if key != "_target_"}
    arguments |= {key: value for key, value in changes.items() if key in arguments}
    return getattr(importlib.import_module(module), name)(**arguments)


def always(settings: dict[str, Any]) -> Any:
    return build(settings, probability=1.0, channel_probability=1.0)


def apply(transform: Any, images: torch.Tensor, valid: torch.Tensor | None, seed: int = 0) -> torch.Tensor:
    """Draw for each image and apply."""
    size = tuple(images.shape[2:])
    drawn = [transform.draw(generator(seed, n, 1), channels=1, patch_size=size)[0] for n in range(len(images))]
    return transform.apply(images, valid, drawn)


every_transform = pytest.mark.parametrize("settings", specifications())
every_size = pytest.mark.parametrize("size", [(24, 20), (16, 18, 14), (4, 20, 17)], ids=str)


def test_there_are_transforms():
    assert len(specifications()) >= 7


@every_transform
@every_size
def test_keeps_shape_type_and_the_input(settings: dict[str, Any], size: tuple[int, ...]):
    images = torch.randn(3, 1, *size)
    before = images.clone()
    result = apply(always(settings), images, None)
    assert result.shape == images.shape
    assert result.dtype == torch.float32
    assert torch.equal(images, before)
    assert not torch.equal(result, images)  # and it does something


@every_transform
@every_size
def test_normalised_data_stays_finite_signed_and_near_normalised(settings: dict[str, Any], size: tuple[int, ...]):
    images = torch.randn(8, 1, *size)
    for seed in range(5):
        result = apply(always(settings), images, None, seed)
        assert result.isfinite().all()
        negative = (result < 0).float().mean()
        assert 0.35 < negative < 0.65  # clipped to zero it would be none
        assert result.mean().abs() < 0.15


@every_transform
@every_size
@pytest.mark.parametrize("value", [0.0, -3.25, 1000.0])
def test_a_constant_image_stays_finite(settings: dict[str, Any], size: tuple[int, ...], value: float):
    images = torch.full((4, 1, *size), value)
    masked = torch.rand(4, 1, *size) > 0.5
    for valid in (None, masked):
        result = apply(always(settings), images, valid)
        assert result.isfinite().all()
        if not settings["_target_"].endswith("Noise"):
            spread = result.amax((1, *range(2, images.ndim))) - result.amin((1, *range(2, images.ndim)))
            if valid is None:
                assert spread.max() <= 1e-5 * max(1, abs(value))


@every_transform
@every_size
def test_outside_valid_is_unchanged_to_the_bit(settings: dict[str, Any], size: tuple[int, ...]):
    images, valid = torch.randn(6, 1, *size), torch.rand(6, 1, *size) > 0.5
    result = apply(always(settings), images, valid)
    assert torch.equal(result[~valid], images[~valid])
    assert not torch.equal(result[valid], images[valid])


@every_transform
def test_an_outlier_far_outside_valid_has_no_influence(settings: dict[str, Any]):
    """Statistics are taken inside; only neighbours within a few voxels may be read besides."""
    images = torch.randn(4, 1, 20, 40)
    valid = torch.zeros(4, 1, 20, 40, dtype=torch.bool)
    valid[..., 20:] = True
    clean = apply(always(settings), images, valid)
    images[..., :10] = 1.7e6
    assert torch.equal(apply(always(settings), images, valid)[valid], clean[valid])


@every_transform
@pytest.mark.parametrize("mask", ["nothing", "one voxel"])
def test_hardly_any_valid_voxel(settings: dict[str, Any], mask: str):
    images, valid = torch.randn(3, 1, 9, 8), torch.zeros(3, 1, 9, 8, dtype=torch.bool)
    if mask == "one voxel":
        valid[..., 4, 4] = True
    result = apply(always(settings), images, valid)
    assert result.isfinite().all()
    assert torch.equal(result[~valid], images[~valid])


@every_transform
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 1, 3)], ids=str)
def test_tiny_images(settings: dict[str, Any], size: tuple[int, ...]):
    assert apply(always(settings), torch.randn(5, 1, *size), None).isfinite().all()


@every_transform
@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_data_of_any_scale(settings: dict[str, Any], scale: float):
    images = torch.randn(5, 1, 12, 13) * scale + 3 * scale
    result = apply(always(settings), images, None)
    assert result.isfinite().all()
    assert result.abs().max() < 20 * max(scale, 0.1)


@every_transform
def test_probability_zero_never_draws(settings: dict[str, Any]):
    transform = build(settings, probability=0.0)
    assert all(transform.draw(generator(0, n, 1), channels=3, patch_size=(8, 8)) is None for n in range(200))


@every_transform
def test_draws_are_one_a_channel_and_a_function_of_the_key(settings: dict[str, Any]):
    transform = always(settings)
    first, again, other = (transform.draw(generator(0, n, 1), channels=4, patch_size=(8, 8, 8)) for n in (5, 5, 6))
    assert len(first) == 4
    assert first == again
    assert first != other
    with pytest.raises(Exception, match="not a probability"):
        build(settings, probability=1.5)


@every_transform
def test_images_of_a_batch_do_not_mix(settings: dict[str, Any]):
    transform = always(settings)
    images, valid = torch.randn(5, 1, 15, 14), torch.rand(5, 1, 15, 14) > 0.2
    size = (15, 14)
    drawn = [transform.draw(generator(1, n, 1), channels=1, patch_size=size)[0] for n in range(5)]
    together = transform.apply(images, valid, drawn)
    for k in range(5):
        alone = transform.apply(images[k : k + 1], valid[k : k + 1], drawn[k : k + 1])
        np.testing.assert_allclose(alone[0], together[k], atol=1e-5)

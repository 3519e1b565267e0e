import importlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.utils._python_dispatch import TorchDispatchMode

from segkit.augmentation import spatial
from segkit.augmentation.brightness import Brightness
from segkit.augmentation.noise import Noise
from segkit.augmentation.recipe import Recipe, SampleParameters
from segkit.augmentation.spatial import Spatial
from segkit.ops.keyed_random import generator
from segkit.types import Batch, Target

CONFIGS = Path(__file__).parents[2] / "configs" / "augmentation"


def build(node: Any, **changes: Any) -> Any:
    """What hydra's instantiate makes of a YAML file; `changes` overrides arguments of every class that has them."""
    if not isinstance(node, dict):
        return node
    arguments = {key: build(value, **changes) for key, value in node.items() if key != "_target_"}
    if "_target_" not in node:
        return arguments
    module, name = node["_target_"].rsplit(".", 1)
    arguments |= {key: value for key, value in changes.items() if key in arguments}
    return getattr(importlib.import_module(module), name)(**arguments)


def recipe(name: str, **changes: Any) -> Recipe:
    return build(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()), **changes)


ALWAYS = {
    "probability": 1.0,
    "channel_probability": 1.0,
    "mirror_probability": 1.0,
    "rotation_probability": 1.0,
    "scale_probability": 1.0,
}
NEVER = dict.fromkeys(ALWAYS, 0.0)


def make_batch(size: tuple[int, ...], count: int = 4, channels: int = 1, first: int = 0, masked: bool = True) -> Batch:
    """Samples that are a function of n, like the loader's."""
    images, labels, masks = [], [], []
    for n in range(first, first + count):
        noise = torch.Generator().manual_seed(n)
        images.append(torch.randn(channels, *size, generator=noise))
        labels.append(torch.randint(-1, 3, (1, *size), generator=noise))
        masks.append(torch.rand(1, *size, generator=noise) > 0.3)
    return Batch(
        image=torch.stack(images),
        target=Target(label=torch.stack(labels)),
        valid=torch.stack(masks) if masked else None,
        case_id=tuple(f"case{n}" for n in range(first, first + count)),
        n=tuple(range(first, first + count)),
    )


@pytest.mark.parametrize("size", [(9, 10, 11), (12, 13)])
@pytest.mark.parametrize("name", ["nnunet", "light", "none"])
def test_nothing_drawn_is_the_identity_to_the_bit(name: str, size: tuple[int, ...]):
    still = recipe(name, **NEVER)
    assert still.source_size(size) == size
    for masked in (True, False):
        batch = make_batch(size, channels=2, masked=masked)
        result = still(batch, patch_size=size, seed=3, flip_axes=tuple(range(len(size))))
        assert torch.equal(result.image, batch.image)
        assert torch.equal(result.target.label, batch.target.label)
        assert (result.valid is None) == (batch.valid is None)
        assert batch.valid is None or torch.equal(result.valid, batch.valid)
        assert (result.n, result.case_id) == (batch.n, batch.case_id)


def test_none_does_nothing():
    batch = make_batch((8, 8))
    assert torch.equal(recipe("none")(batch, patch_size=(8, 8), seed=0, flip_axes=(0, 1)).image, batch.image)


@pytest.mark.parametrize("name", ["nnunet", "light"])
@pytest.mark.parametrize("patch", [(10, 12, 11), (16, 15), (4, 15, 14)])
@pytest.mark.parametrize("channels", [1, 3])
def test_everything_drawn_is_finite_and_of_the_right_shape(name: str, patch: tuple[int, ...], channels: int):
    full = recipe(name, **ALWAYS)
    batch = make_batch(full.source_size(patch), channels=channels)
    result = full(batch, patch_size=patch, seed=1, flip_axes=tuple(range(len(patch))))
    assert result.image.shape == (4, channels, *patch)
    assert result.image.dtype == torch.float32
    assert result.target.label.shape == (4, 1, *patch)
    assert result.valid is not None
    assert result.valid.shape == (4, 1, *patch)
    assert result.image.isfinite().all()
    assert (result.image < 0).any()
    assert set(result.target.label.unique().tolist()) <= {-1, 0, 1, 2}
    assert not result.image.requires_grad


def test_outside_valid_is_unchanged_after_hundreds_of_recipes():
    """Masked normalisation sets the outside to a value that the inside's statistics must not see, nor change."""
    intensity = Recipe(intensity=recipe("nnunet", **{k: 0.5 for k in ("probability", "channel_probability")}).intensity)
    size = (7, 8, 6)
    changed = 0
    for first in range(0, 400, 4):
        batch = make_batch(size, channels=2, first=first)
        result = intensity(batch, patch_size=size, seed=5, flip_axes=())
        outside = ~batch.valid.expand_as(batch.image)
        assert torch.equal(result.image[outside], batch.image[outside])
        assert result.image.isfinite().all()
        changed += sum(not torch.equal(a, b) for a, b in zip(result.image, batch.image, strict=True))
    assert changed > 380


@pytest.mark.parametrize("patch", [(10, 11, 12), (4, 14, 13), (15, 16)], ids=str)
@pytest.mark.parametrize("masked", [True, False])
def test_a_sample_does_not_depend_on_its_batch(patch: tuple[int, ...], masked: bool):
    """To the bit. Without a mask, some batches get one (a patch left its source) and some do not."""
    nnunet = recipe("nnunet", probability=0.7, rotation_probability=0.5, scale_probability=0.5)
    source, axes = nnunet.source_size(patch), tuple(range(len(patch)))
    together = nnunet(make_batch(source, 8, 2, masked=masked), patch_size=patch, seed=9, flip_axes=axes)
    for first, count in ((0, 3), (3, 1), (4, 4), (0, 1), (7, 1)):
        part = make_batch(source, count, channels=2, first=first, masked=masked)
        alone = nnunet(part, patch_size=patch, seed=9, flip_axes=axes)
        chosen = slice(first, first + count)
        assert torch.equal(alone.image, together.image[chosen])
        assert torch.equal(alone.target.label, together.target.label[chosen])
        if alone.valid is not None and together.valid is not None:
            assert torch.equal(alone.valid, together.valid[chosen])
        else:
            assert not masked
            assert together.valid is None or together.valid[chosen].all()


def test_the_seed_and_n_both_matter_and_nothing_else_does():
    nnunet, patch = recipe("nnunet", **ALWAYS), (10, 11, 12)
    batch = make_batch(nnunet.source_size(patch), 1)

    def augmented(n: int, seed: int) -> torch.Tensor:
        return nnunet(replace(batch, n=(n,)), patch_size=patch, seed=seed, flip_axes=(0, 1, 2)).image

    first = augmented(0, 0)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    torch.rand(5)
    assert torch.equal(first, augmented(0, 0))
    assert not torch.equal(first, augmented(1, 0))
    assert not torch.equal(first, augmented(0, 1))


def test_global_random_state_is_left_alone():
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    full = recipe("nnunet", **ALWAYS)
    full(make_batch(full.source_size((8, 8)), 2), patch_size=(8, 8), seed=0, flip_axes=(0, 1))
    assert torch.equal(torch.rand(3), expected)


def test_the_input_is_not_edited():
    full = recipe("nnunet", **{**ALWAYS, "rotation_probability": 0.0, "scale_probability": 0.0})
    batch = make_batch((9, 9, 9), channels=2)
    image, label, valid = batch.image.clone(), batch.target.label.clone(), batch.valid.clone()
    full(batch, patch_size=(9, 9, 9), seed=0, flip_axes=())
    assert torch.equal(batch.image, image)
    assert torch.equal(batch.target.label, label)
    assert torch.equal(batch.valid, valid)


def test_only_allowed_axes_are_mirrored():
    mirror = Recipe(spatial=Spatial(rotation_probability=0.0, scale_probability=0.0))
    batch = make_batch((5, 6, 7), 64)
    result = mirror(batch, patch_size=(5, 6, 7), seed=0, flip_axes=(1, 2))
    for before, after in zip(batch.image, result.image, strict=True):
        assert any(torch.equal(after, before.flip(axes)) for axes in ((), (2,), (3,), (2, 3)))
        # the patient's left stays left: each slab along axis 0 holds the same values as before
        assert torch.equal(before.flatten(2).sort().values, after.flatten(2).sort().values)
    assert sum(torch.equal(a, b) for a, b in zip(batch.image, result.image, strict=True)) < 32


@pytest.mark.parametrize("together", [False, True])
def test_one_resampling_for_what_was_drawn_and_none_for_the_rest(monkeypatch: pytest.MonkeyPatch, together: bool):
    """Rotation, scale and mirroring in one; samples with neither rotation nor scale are copied."""
    counts: list[int] = []
    for name in ("resample", "rescale"):
        real = getattr(spatial, name)

        def counted(parts, *arguments, real=real, **keywords):
            counts.append(len(parts["image"]))
            return real(parts, *arguments, **keywords)

        monkeypatch.setattr(spatial, name, counted)
    nnunet, patch = recipe("nnunet"), (8, 9, 10)
    batch = make_batch(nnunet.source_size(patch), 32)
    drawn = [nnunet.draw(generator(0, n, 1), patch, flip_axes=(0, 1, 2)) for n in batch.n]
    nnunet.apply(batch, drawn, patch, together=together)
    expected = sum(one.spatial.resampled for one in drawn)
    assert 0 < expected < 32
    assert sum(counts) == expected
    assert len(counts) == (1 if together else expected)


class Operations(TorchDispatchMode):
    """Counts the tensor operations that run inside, by name, and the elements of those that write new tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.written = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.names[func._schema.name] += 1
        if func._schema.name in ("aten::copy_", "aten::clone", "aten::cat", "aten::stack", "aten::_to_copy"):
            self.written += result.numel()
        return result


WAITS = {
    f"aten::{name}"
    for name in (
        "_local_scalar_dense",
        "item",
        "nonzero",
        "masked_select",
        "unique2",
        "_unique2",
        "equal",
        "is_nonzero",
    )
}
"""Operations whose result the host has to wait for, or whose shape depends on values."""


@pytest.mark.parametrize("patch", [(10, 12, 11), (16, 15), (4, 15, 14)], ids=str)
@pytest.mark.parametrize("masked", [True, False])
def test_nothing_on_the_way_of_an_accelerator_waits_for_the_device(patch: tuple[int, ...], masked: bool):
    """Every transform drawn, all samples together: the path of a GPU, here on CPU tensors."""
    full = recipe("nnunet", **ALWAYS)
    batch = make_batch(full.source_size(patch), 3, channels=2, masked=masked)
    drawn = [full.draw(generator(0, n, 1), patch, channels=2, flip_axes=tuple(range(len(patch)))) for n in batch.n]
    with Operations() as operations:
        full.apply(batch, drawn, patch, together=True)
    assert operations.names.total() > 50
    assert not WAITS & set(operations.names)
    indices = {"aten::index", "aten::index_put_", "aten::index_put"}  # with a mask these look for what is True
    assert not indices & set(operations.names)


def test_the_counter_sees_what_waits():
    with Operations() as operations:
        values = torch.randn(5)
        bool(values.max() > 0), values[values > 0]
    assert {"aten::_local_scalar_dense", "aten::index"} <= set(operations.names)


@pytest.mark.parametrize("patch", [(10, 12, 11), (16, 15), (4, 15, 14)], ids=str)
@pytest.mark.parametrize("masked", [True, False])
def test_all_samples_together_give_what_one_by_one_gives(patch: tuple[int, ...], masked: bool):
    nnunet = recipe("nnunet", probability=0.6, rotation_probability=0.5, scale_probability=0.5)
    batch = make_batch(nnunet.source_size(patch), 8, channels=2, masked=masked)
    axes = tuple(range(len(patch)))
    drawn = [nnunet.draw(generator(2, n, 1), patch, channels=2, flip_axes=axes) for n in batch.n]
    one, all_ = (nnunet.apply(batch, drawn, patch, together=together) for together in (False, True))
    assert (one.target.label == all_.target.label).float().mean() > 0.999
    assert (one.valid is None) == (all_.valid is None)
    assert ((one.image - all_.image).abs() < 1e-3).float().mean() > 0.999


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_what_was_not_drawn_costs_nothing(monkeypatch: pytest.MonkeyPatch, together: bool, masked: bool):
    """Nothing drawn: no transform runs, and each field is copied once, out of the loader's larger patch."""
    nnunet, patch = recipe("nnunet"), (8, 9, 10)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing was drawn")

    for transform in nnunet.intensity.values():
        monkeypatch.setattr(type(transform), "apply", never)
    for name in ("resample", "rescale"):
        monkeypatch.setattr(spatial, name, never)
    batch = make_batch(nnunet.source_size(patch), 3, channels=2, masked=masked)
    nothing = SampleParameters(spatial=spatial.SpatialDraw(flips=(False,) * 3), intensity={})
    with Operations() as operations:
        result = nnunet.apply(batch, [nothing] * 3, patch, together=together)
    fields = [result.image, result.target.label, *([result.valid] if result.valid is not None else [])]
    assert operations.written == sum(field.numel() for field in fields)
    reads = {
        "aten::amin",
        "aten::_local_scalar_dense",
        "aten::view",
        "aten::alias",
        "aten::detach",
    }  # is the mask full?
    kept = {"aten::new_empty", "aten::copy_", "aten::slice", "aten::select"}
    assert set(operations.names) <= kept | (reads if masked and not together else set())


def test_what_was_not_drawn_is_not_computed(monkeypatch: pytest.MonkeyPatch):
    computed = []
    real = Brightness.apply

    def counted(self, images, valid, drawn):
        computed.append(len(images))
        return real(self, images, valid, drawn)

    monkeypatch.setattr(Brightness, "apply", counted)
    only = Recipe(intensity={"brightness": Brightness(probability=0.3)})
    only(make_batch((4, 4), 50, channels=2), patch_size=(4, 4), seed=0, flip_axes=())
    drawn = sum("brightness" in only.draw(generator(0, n, 1), (4, 4), channels=2).intensity for n in range(50))
    assert sum(computed) == 2 * drawn
    assert 0 < drawn < 50


def test_transforms_run_in_the_order_of_the_file_and_null_leaves_one_out():
    assert list(recipe("nnunet").intensity) == [
        "noise",
        "blur",
        "brightness",
        "contrast",
        "low_resolution",
        "gamma_inverted",
        "gamma",
    ]
    assert list(Recipe(intensity={"noise": None, "brightness": Brightness()}).intensity) == ["brightness"]


def test_half_precision_autocast_around_it_changes_nothing():
    full = recipe("nnunet", **ALWAYS)
    batch = make_batch(full.source_size((8, 9, 10)), 2)
    plain = full(batch, patch_size=(8, 9, 10), seed=0, flip_axes=())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = full(batch, patch_size=(8, 9, 10), seed=0, flip_axes=())
    assert torch.equal(plain.image, inside.image)


def test_optional_fields_of_the_target_go_along():
    nnunet, patch = recipe("nnunet", **ALWAYS), (10, 10)
    batch = make_batch(nnunet.source_size(patch), 2)
    label = batch.target.label
    target = replace(batch.target, instances=label + 5, labels_present=torch.ones(2, 3, dtype=torch.bool))
    target = replace(target, spacing=(1.0, 2.0), weight=label.float())
    result = nnunet(replace(batch, target=target), patch_size=patch, seed=0, flip_axes=(0, 1))
    seen = result.target.instances > 0
    assert seen.float().mean() > 0.3
    assert torch.equal(result.target.instances[seen], result.target.label[seen] + 5)
    assert torch.equal(result.target.weight[seen], result.target.label[seen].float())
    assert torch.equal(result.target.labels_present, target.labels_present)
    assert result.target.spacing == (1.0, 2.0)


def test_a_batch_normalised_stays_near_normalised():
    """Mean and spread of what the network sees: a transform that breaks normalisation shows here first."""
    nnunet, patch = recipe("nnunet"), (12, 12, 12)
    batch = make_batch(patch, 200, masked=False)
    still = Recipe(intensity=nnunet.intensity)
    result = still(batch, patch_size=patch, seed=0, flip_axes=())
    assert abs(result.image.mean()) < 0.02
    assert 0.85 < result.image.std() < 1.05  # blur and low resolution smooth white noise; nothing else shrinks it


def test_noise_does_not_touch_other_draws():
    """The field's seed is drawn with the parameters, so the field has no say in what later transforms draw."""
    one = Recipe(intensity={"noise": Noise(probability=1.0, sigma=(0.0, 0.1)), "brightness": Brightness(1.0)})
    two = Recipe(intensity={"noise": Noise(probability=1.0, sigma=(0.5, 0.6)), "brightness": Brightness(1.0)})
    for n in range(20):
        first, second = (r.draw(generator(0, n, 1), (4, 4), channels=2) for r in (one, two))
        assert first.intensity["brightness"] == second.intensity["brightness"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_parameters_are_the_same_on_a_gpu():
    full = recipe("nnunet", **ALWAYS)
    full.intensity.pop("noise")  # its field comes from the device's own generator
    batch = make_batch(full.source_size((16, 20, 18)), 4, channels=2)
    cpu = full(batch, patch_size=(16, 20, 18), seed=0, flip_axes=(0, 1, 2))
    gpu = full(batch.to("cuda"), patch_size=(16, 20, 18), seed=0, flip_axes=(0, 1, 2)).to("cpu")
    assert (cpu.target.label == gpu.target.label).float().mean() > 0.999
    assert ((cpu.image - gpu.image)[(cpu.valid & gpu.valid).expand_as(cpu.image)].abs() < 1e-2).float().mean() > 0.99


@pytest.mark.parametrize(("broken", "at"), [("noise", "draw"), ("brightness", "apply"), ("spatial", "draw")])
def test_an_error_names_the_transform_and_the_cases_and_stays_of_its_kind(monkeypatch, broken: str, at: str):
    failing = recipe("nnunet", **ALWAYS)
    transform = failing.spatial if broken == "spatial" else failing.intensity[broken]

    def fails(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("no room")  # out of memory must be told from a bug

    monkeypatch.setattr(type(transform), at, fails)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        failing(make_batch((24, 24, 24), count=2), patch_size=(8, 8, 8), seed=0, flip_axes=())
    assert caught.value.__notes__ == [f"transform: {broken}", "cases: case0, case1 (n=0 to 1)"]

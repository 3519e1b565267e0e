"""Target at the levels of deep supervision: the voxels of nearest-exact, as views where a stride reaches them."""

from dataclasses import replace

import jaxtyping
import pytest
import torch
from torch.nn import functional as F

from segkit.ops.one_hot import one_hot
from segkit.types import Target


def target(shape, dtype=torch.int16):
    label = torch.randint(-1, 5, (2, 1, *shape), generator=torch.Generator().manual_seed(0)).to(dtype)
    return Target(label=label, cells=label + 1, weight=label.float(), spacing=tuple(1.0 for _ in shape))


@pytest.mark.parametrize("shape", [(12, 16), (7, 9), (8, 12, 10), (5, 24, 7), (96, 40, 1)])
def test_takes_the_voxels_of_nearest_exact(shape):
    here = target(shape)
    for divisors in ([1, 2, 4], [2, 2, 2], [3, 4, 1], [2.5, 1, 3.7], [4, 4, 2]):
        coarse = tuple(max(1, int(n / d)) for n, d in zip(shape, divisors, strict=False))
        there = here.at_level(coarse)
        for name in ("label", "cells", "weight"):
            field = getattr(here, name)
            expected = F.interpolate(field.double(), size=coarse, mode="nearest-exact").to(field.dtype)
            assert torch.equal(getattr(there, name), expected)
            assert getattr(there, name).dtype == field.dtype
        assert there.spacing == tuple(old / new for old, new in zip(shape, coarse, strict=True))


def test_a_finer_grid_repeats_voxels():
    here = target((3, 4))
    expected = F.interpolate(here.label.double(), size=(6, 9), mode="nearest-exact").to(torch.int16)
    assert torch.equal(here.at_level((6, 9)).label, expected)


@pytest.mark.parametrize("factors", [(2, 2, 2), (1, 2, 4), (3, 1, 6)])
def test_whole_factors_copy_nothing(factors):
    here = target((12, 16, 12))
    coarse = tuple(n // f for n, f in zip((12, 16, 12), factors, strict=True))
    for name in ("label", "cells", "weight"):
        field, view = getattr(here, name), getattr(here.at_level(coarse), name)
        assert view.untyped_storage().data_ptr() == field.untyped_storage().data_ptr()
        assert view.shape[2:] == coarse


def test_the_number_of_instances_goes_down_the_levels_and_to_the_device():
    counted = replace(target((4, 6)), num_instances=7)
    assert counted.at_level((2, 3)).num_instances == counted.to("cpu").num_instances == 7


def test_the_same_grid_is_the_same_target():
    here = target((4, 6))
    assert here.at_level((4, 6)) is here


def test_a_shape_that_is_not_the_annotated_one_fails_a_test():
    """Annotations of shapes are assertions here (`tests/conftest.py`)."""
    with pytest.raises(jaxtyping.TypeCheckError, match=r"Expected type: .*B 1 \*S"):
        replace(target((4, 4)), label=torch.zeros(2, 2, 4, 4, dtype=torch.int16))
    with pytest.raises(jaxtyping.TypeCheckError, match=r"Expected type: .*B 1 \*S"):
        one_hot(torch.zeros(1, 4, 4), 2)

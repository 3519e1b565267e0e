"""Every plan that segkit makes is plausible; every field may be spoiled, and is then named."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from segkit.planning.plan import Normalisation, Plan
from segkit.planning.plausible import implausible
from segkit.types import Labels

PLAN = Plan(
    name="tiny",
    dimensions=3,
    channels=("CT",),
    labels=Labels(("background", "organ"), (0, 1)),
    spacing=(1.0, 1.0, 2.5),
    unit="mm",
    normalisation=(Normalisation("ct", mean=40.0, std=20.0, low=-100.0, high=200.0),),
    patch_size=(16, 16, 8),
    batch_size=2,
    features=(4, 8),
    strides=((1, 1, 1), (2, 2, 1)),
    kernel_sizes=((3, 3, 1), (3, 3, 3)),
    blocks_per_stage=(1, 2),
    batch_dice=True,
    steps_per_epoch=10,
    max_epochs=5,
    learning_rate=1e-3,
    validation_every_n_epochs=1,
    precision="32-true",
    tile_batch=2,
    flip_axes=(0, 2),
)


def test_a_plan_is_plausible() -> None:
    assert implausible(PLAN) is None
    assert implausible(Plan.from_json(PLAN.to_json())) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dimensions", 4),
        ("channels", ()),
        ("labels", Labels(("background",), (0,))),
        ("labels", Labels(("background", "x"), (0, 2**40))),
        ("spacing", (1.0, 1.0)),
        ("spacing", (1.0, 1.0, float("nan"))),
        ("spacing", (1.0, 1.0, 0.0)),
        ("unit", "inch"),
        ("normalisation", ()),
        ("normalisation", (SimpleNamespace(scheme="eval", masked=False, mean=None, std=None, low=None, high=None),)),
        ("patch_size", (16, 16)),
        ("patch_size", (2**11, 2**11, 2**11)),
        ("batch_size", 0),
        ("batch_size", True),
        ("features", ()),
        ("strides", ((1, 1, 1),)),
        ("kernel_sizes", ((3, 3), (3, 3))),
        ("blocks_per_stage", (1,)),
        ("batch_dice", "yes"),
        ("learning_rate", float("inf")),
        ("precision", "8-bit"),
        ("tile_batch", 10**30),
        ("flip_axes", (3,)),
    ],
)
def test_a_spoiled_field_is_named(field: str, value: object) -> None:
    spoiled = object.__new__(Plan)
    object.__setattr__(spoiled, "__dict__", {**PLAN.__dict__, field: value})
    assert (implausible(spoiled) or "").startswith(f"{field} is ")
    assert replace(PLAN) == PLAN

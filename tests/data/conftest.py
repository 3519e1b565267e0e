"""Plans and prepared phantoms for the tests of the data package."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segkit.planning.plan import Normalisation, Plan
from segkit.types import Labels

_CONFIG: dict[str, Any] = {
    "data": {
        "root": None,
        "name": None,
        "layout": "auto",
        "labels": "auto",
        "groups": None,
        "ignore_label": None,
        "laterality": "auto",
        "max_cases": None,
        "split": {"folds": 5, "fold": 0, "tuning": 0.15, "seed": 12345, "file": None},
    },
    "plan": {"name": "tiny"},
    "trainer": {"accelerator": "cpu", "max_epochs": None, "steps_per_epoch": None, "precision": None},
    "validation": {"every_n_epochs": None, "tile_batch": None},
}


@pytest.fixture
def config(tmp_path: Path) -> Callable[[Path], dict[str, Any]]:
    """`config(root)`: the resolved configuration of a data set, its cache in the test's own folder."""

    def make(root: Path) -> dict[str, Any]:
        made = copy.deepcopy(_CONFIG)
        made["data"]["root"] = str(root)
        made["paths"] = {"cache": str(tmp_path / "cache")}
        return made

    return make


@pytest.fixture
def plan() -> Callable[..., Plan]:
    """`plan(spacing=..., **fields)`: a small plan for phantoms with three classes."""

    def make(
        *,
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        normalisation: Sequence[Normalisation] = (Normalisation("zscore"),),
        labels: Labels | None = None,
        **fields: Any,
    ) -> Plan:
        dimensions = len(spacing)
        made = Plan(
            name="tiny",
            dimensions=dimensions,
            channels=tuple(f"channel{c}" for c in range(len(normalisation))),
            labels=labels or Labels(("background", "ball_a", "ball_b"), (0, 1, 2)),
            spacing=tuple(spacing),
            unit="mm",
            normalisation=tuple(normalisation),
            patch_size=(16,) * dimensions,
            batch_size=3,
            features=(8, 16),
            strides=((1,) * dimensions, (2,) * dimensions),
            kernel_sizes=((3,) * dimensions,) * 2,
            blocks_per_stage=(1, 1),
            batch_dice=False,
            steps_per_epoch=4,
            max_epochs=2,
            learning_rate=1e-3,
            validation_every_n_epochs=1,
            precision="32-true",
            tile_batch=1,
            flip_axes=tuple(range(dimensions)),
        )
        return replace(made, **fields)

    return make

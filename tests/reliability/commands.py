"""Command lines of tiny trainings, for real processes."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def train_argv(tmp_path: Path, nnunet_raw: Callable[..., Path]) -> Callable[..., list[str]]:
    """Factory of command lines: two epochs of three steps on eight phantoms, in float32, one shared cache.

    `train_argv("name", "key=value", ...)`; the runs lie in tmp_path / "runs".
    """
    root = nnunet_raw(cases=8)

    def make(name: str, *overrides: str) -> list[str]:
        words = {
            "debug": "fast",
            "data.root": root,
            "paths.runs": tmp_path / "runs",
            "run_name": name,
            "trainer.steps_per_epoch": 3,
            "trainer.precision": "32-true",
            "trainer.threads": 1,
            "trainer.accelerator": "cpu",
            "trainer.check_memory": "false",  # a fifth of so short a run
            "overlays.cases": 0,
        }
        words |= dict(override.split("=", 1) for override in overrides)
        return [f"{key}={value}" for key, value in words.items()]

    return make

"""A phantom data set, the smallest run over it, and what two runs are compared by."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from segkit.callbacks.checkpointing import Checkpointing
from segkit.configuration import compose
from segkit.runs.checkpoints import read_checkpoint
from segkit.runs.index import last, load_index
from segkit.runs.manifest import checkpoint_path


@pytest.fixture
def run_config(tmp_path: Path, nnunet_raw: Callable[..., Path]) -> Callable[..., dict[str, Any]]:
    """Factory of train configurations: debug=fast on eight phantoms, 2 epochs of 3 steps, float32, one cache."""
    root = nnunet_raw(cases=8)

    def make(name: str, *overrides: str, data_root: Path | None = None) -> dict[str, Any]:
        words = {
            "debug": "fast",
            "data.root": data_root or root,
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
        typed = [f"{key}={value}" for key, value in words.items()]
        return {**compose("train", typed), "overrides": typed}

    return make


class _StopAfter(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            next(c for c in trainer.callbacks if isinstance(c, Checkpointing)).preempt("the test")


@pytest.fixture
def stop_after() -> Callable[[int], Callback]:
    """`stop_after(step)` asks for the end of the run, as a signal would, after an optimizer step."""
    return _StopAfter


@pytest.fixture
def end_state() -> Callable[[Path], dict[str, Any]]:
    """Everything that two equal runs have in common, from a run folder."""

    def read(run: Path) -> dict[str, Any]:
        newest = last(load_index(run / "checkpoints"))
        assert newest is not None
        contents = read_checkpoint(checkpoint_path(run / "checkpoints", newest.step))
        moments = contents.optimizer["optimizer_states"][0]["state"]
        return {
            "step": newest.step,
            "n": newest.n,
            "score": newest.score,
            "weights": contents.model,
            "raw weights": contents.training or {},
            "moments": {f"{k}/{name}": torch.as_tensor(v) for k, s in moments.items() for name, v in s.items()},
            "metrics": (run / "metrics.jsonl").read_text(),
        }

    return read


@pytest.fixture
def assert_bitwise_equal() -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """Every tensor to the bit, everything else to the character."""

    def compare(one: dict[str, Any], other: dict[str, Any]) -> None:
        assert one.keys() == other.keys()
        for key, value in one.items():
            if not isinstance(value, dict):
                assert value == other[key], key
                continue
            assert value.keys() == other[key].keys()
            different = [name for name, tensor in value.items() if not torch.equal(tensor, other[key][name])]
            assert different == [], key

    return compare

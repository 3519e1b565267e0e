"""Guarantees R1 to R24: the same tests small in the default run, and at full size with SEGKIT_RELIABILITY=full."""

import os
from typing import TypeVar

import pytest
from tests.mlflow_stores import make_store
from tests.reliability.commands import train_argv
from tests.reliability.processes import forks
from tests.runs_of_phantoms import assert_bitwise_equal, end_state, run_config, stop_after

__all__ = ["assert_bitwise_equal", "end_state", "forks", "make_store", "run_config", "size", "stop_after", "train_argv"]

Size = TypeVar("Size")


class _Size:
    """Which of two sizes of a test is run."""

    full = os.environ.get("SEGKIT_RELIABILITY") == "full"

    def __call__(self, fast: Size, full: Size) -> Size:
        return full if self.full else fast


@pytest.fixture(scope="session")
def size() -> _Size:
    """`size(4, 100)` is 4 in the default run and 100 under `make test-reliability`."""
    return _Size()

"""What is timed: one module a row, each with its `ROW`."""

import importlib

from benchmarks.harness import Row

NAMES = (
    "augmentation",
    "loss",
    "scan",
    "component_loss",
    "step",
    "unet",
    "network",
    "loading",
    "epoch",
    "prediction",
    "overhead",
    "folder",
    "preparation",
    "start_up",
    "memory",
    "network_memory",
    "trainers",
)


def load(name: str) -> Row:
    """The row of a name.

    Raises:
        KeyError: There is none.
    """
    if name not in NAMES:
        raise KeyError(f"no row {name!r}; there are {', '.join(NAMES)}")
    row: Row = importlib.import_module(f"benchmarks.rows.{name}").ROW
    return row

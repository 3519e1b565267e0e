"""Is there room for the checkpoints? Asked before the first step rather than answered by the disk after an epoch."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from segkit.errors import StorageError

COPIES = 3
"""Two generations that are kept, and the one that is being written."""
_BESIDE = 2**16
"""Bytes of counters, manifest and file headers of a small network's checkpoint."""


def checkpoint_bytes(module: nn.Module, *, optimizer: Mapping[str, Any], averaged: bool = False) -> int:
    """Size of a checkpoint, bytes: w (1 + a) + m p.

    w are the bytes of the weights, p those of them that are trained, m the numbers that the optimizer keeps for each
    and a is 1 where averaged weights lie beside the raw ones.

    Args:
        module: What is trained.
        optimizer: Section `optimizer` of the configuration.
        averaged: Whether an average of the weights is kept.
    """
    weights: int = sum(value.numel() * value.element_size() for value in module.state_dict().values())
    trained = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
    return weights * (2 if averaged else 1) + moments(optimizer) * trained + _BESIDE


def moments(optimizer: Mapping[str, Any]) -> int:
    """Numbers that an optimizer keeps for each weight: SGD one with momentum, AdamW and what is unknown two."""
    settings = {**optimizer, **(optimizer.get("args") or {})}
    if str(settings.get("_target_", "")).endswith(".SGD"):
        return 1 if settings.get("momentum") else 0
    return 3 if settings.get("amsgrad") else 2


def require_room(root: Path, *, checkpoint: int) -> None:
    """Refuse to train where the checkpoints would not fit.

    Room is free space and what the run's earlier checkpoints take: a run that goes on needs no more than one that
    starts. One more must fit in any case.

    Args:
        root: Folder of the checkpoints; it exists.
        checkpoint: Size of one, bytes.

    Raises:
        StorageError: Less than three times that size; names both.
    """
    free = shutil.disk_usage(root).free
    held = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    if free >= checkpoint and free + held >= COPIES * checkpoint:
        return
    raise StorageError(
        "There is too little room on the drive for the checkpoints.",
        where=str(root),
        why=f"a checkpoint takes about {_megabytes(checkpoint)}, {COPIES} of them {_megabytes(COPIES * checkpoint)}; "
        f"{_megabytes(free)} are free",
        mend="make room, or paths.runs=<a folder on a larger drive>",
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"

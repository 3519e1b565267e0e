"""One checkpoint: a folder `step-00001234/`, whole or absent, every byte of it accounted for.

    model.safetensors      the weights that were validated (the averaged ones where an average is kept)
    training.safetensors   the weights that the optimizer moves; only where they differ from the above
    optimizer.pt           moments and parameter groups
    state.pt               counters of the loops, schedulers, callbacks, position in the data
    MANIFEST.json          sha256 and size of each file, what the checkpoint stands for; written last

Written beside its final name, synced, verified by reading it back, renamed. The `.pt` files hold tensors and
plain values only and are read with `weights_only=True`: a checkpoint is data and executes nothing. Neither
torch nor safetensors notices a flipped bit in a tensor; the checksums do.
"""

import logging
import os
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from segkit.errors import StorageError
from segkit.runs.files import atomic_write, remove_tree, sync_file, sync_folder
from segkit.runs.manifest import (
    MANIFEST,
    MODEL,
    OPTIMIZER,
    STATE,
    TRAINING,
    Entry,
    checkpoint_path,
    checkpoint_steps,
    damaged,
    manifest_of,
    verify_checkpoint,
)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Contents:
    """A checkpoint in memory, on the CPU. `training` is None where it equals `model`."""

    entry: Entry
    model: dict[str, Tensor]
    training: dict[str, Tensor] | None
    optimizer: dict[str, Any]
    state: dict[str, Any]


def write_checkpoint(
    path: Path,
    entry: Entry,
    *,
    model: Mapping[str, Tensor],
    optimizer: Mapping[str, Any],
    state: Mapping[str, Any],
    training: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write a checkpoint; afterwards it is whole on the disk, or nothing has changed.

    A checkpoint of the same name is replaced.

    Args:
        path: Final folder.
        entry: What it stands for.
        model: Weights that were validated.
        optimizer: Tensors and plain values.
        state: Tensors and plain values.
        training: Weights that the optimizer moves, where they differ from `model`.

    Returns:
        `path`.

    Raises:
        OSError: As the system gave it (disk full, read-only); nothing is left behind.
        StorageError: What was read back is not what was written.
        TypeError: `state` or `optimizer` holds something else than tensors and plain values.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        save_file(_own_storage(model), temporary / MODEL)
        if training is not None:
            save_file(_own_storage(training), temporary / TRAINING)
        _save_plain(dict(optimizer), temporary / OPTIMIZER)
        _save_plain(dict(state), temporary / STATE)
        for file in temporary.iterdir():
            sync_file(file)
        atomic_write(temporary / MANIFEST, manifest_of(temporary, entry, contents=sorted(state)))
        verify_checkpoint(temporary)
        if path.exists():
            remove_tree(path)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(path.parent)
    return path


def read_checkpoint(path: Path) -> Contents:
    """Verify and read a checkpoint to the CPU. Executes nothing.

    Raises:
        StorageError: It is damaged; names the file.
    """
    entry = verify_checkpoint(path)
    try:
        return Contents(
            entry=entry,
            model=load_file(path / MODEL),
            training=load_file(path / TRAINING) if (path / TRAINING).is_file() else None,
            optimizer=_load_plain(path / OPTIMIZER),
            state=_load_plain(path / STATE),
        )
    except (OSError, RuntimeError, ValueError, SafetensorError, pickle.UnpicklingError) as error:
        raise damaged(path, f"it cannot be read: {error}") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Verify and read the validated weights alone: all that prediction needs.

    Raises:
        StorageError: They are damaged.
    """
    verify_checkpoint(path, files=frozenset({MODEL}))
    return load_file(path / MODEL)


def newest_valid(root: Path) -> Path | None:
    """The newest checkpoint that is whole; damaged ones are named in a warning and passed over.

    Returns:
        Its folder, or None where there is no checkpoint at all.

    Raises:
        StorageError: There are checkpoints and all are damaged: a run never starts afresh in silence.
    """
    faults = []
    for step in reversed(checkpoint_steps(root)):
        path = checkpoint_path(root, step)
        try:
            verify_checkpoint(path)
        except StorageError as error:
            faults.append(f"{path.name} ({error.why})")
            _logger.warning("Checkpoint %s cannot be used, going back to the one before it: %s", path.name, error)
        else:
            return path
    if faults:
        raise StorageError(
            "No checkpoint of the run can be used.",
            where=str(root),
            why="; ".join(faults),
            mend="restore one from a backup, or give another run_name to start afresh",
        )
    return None


def sweep(root: Path) -> None:
    """Remove what a killed process left half-written or half-removed. Only for who holds the run."""
    if root.is_dir():
        for path in root.iterdir():
            if path.name.startswith(".") and path.suffix in {".tmp", ".trash"}:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _own_storage(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, no two sharing memory: safetensors writes nothing else."""
    seen: set[int] = set()
    own = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().to("cpu").contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        seen.add(storage.data_ptr())
        own[name] = tensor
    return own


def _save_plain(value: dict[str, Any], path: Path) -> None:
    torch.save(value, path)
    try:
        _load_plain(path)
    except pickle.UnpicklingError as error:
        raise TypeError(
            f"{path.name} must hold tensors and plain values only, so that reading it executes nothing: {error}"
        ) from error


def _load_plain(path: Path) -> dict[str, Any]:
    value = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} holds no mapping")
    return value

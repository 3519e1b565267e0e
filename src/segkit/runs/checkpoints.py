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
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from segkit.errors import StorageError
from segkit.runs.files import atomic_write, sync_file, sync_folder
from segkit.runs.identity import identity
from segkit.runs.index import INDEX, load_index, write_pointers
from segkit.runs.manifest import (
    MANIFEST,
    MODEL,
    OPTIMIZER,
    STATE,
    TRAINING,
    Entry,
    NewerFormat,
    checkpoint_path,
    checkpoint_steps,
    damaged,
    manifest_of,
    verify_checkpoint,
)
from segkit.runs.system_errors import as_the_system_said
from segkit.runs.tensors import load_plain, load_tensors

_ASIDE = ".aside"
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

    A checkpoint of the same name is replaced: put aside, and removed when the new one has the name. A kill between
    the two leaves it aside, from where `sweep` brings it back.

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
        OSError: As the system gave it (disk full, read-only), also where a library hides it behind an error of its
            own; nothing is left behind.
        StorageError: What was read back is not what was written.
        TypeError: `state` or `optimizer` holds something else than tensors and plain values.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        _save_weights(model, temporary / MODEL)
        if training is not None:
            _save_weights(training, temporary / TRAINING)
        _save_plain(dict(optimizer), temporary / OPTIMIZER)
        _save_plain(dict(state), temporary / STATE)
        for file in temporary.iterdir():
            sync_file(file)
        manifest = manifest_of(temporary, entry, contents=sorted(state), run=identity(path.parent))
        atomic_write(temporary / MANIFEST, manifest)
        verify_checkpoint(temporary)
        _put(temporary, path)
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
            model=load_tensors(path / MODEL),
            training=load_tensors(path / TRAINING) if (path / TRAINING).is_file() else None,
            optimizer=load_plain(path / OPTIMIZER),
            state=load_plain(path / STATE),
        )
    except OSError as error:
        raise damaged(path, f"it cannot be read: {error}") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Verify and read the validated weights alone: all that prediction needs.

    Raises:
        StorageError: They are damaged.
    """
    verify_checkpoint(path, files=frozenset({MODEL}))
    return load_tensors(path / MODEL)


def newest_valid(root: Path) -> Path | None:
    """The newest checkpoint that is whole; damaged ones are named in a warning and passed over.

    Returns:
        Its folder, or None where there is no checkpoint at all.

    Raises:
        StorageError: There are checkpoints and all are damaged: a run never starts afresh in silence; or one was
            written by a newer segkit.
    """
    faults = []
    for step in reversed(checkpoint_steps(root)):
        path = checkpoint_path(root, step)
        try:
            verify_checkpoint(path)
        except NewerFormat:
            raise  # whole, and further on: going on from an older one would remove it
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
    """Put right what a killed process left half-done. Only for who holds the run.

    What was half-written or half-removed goes; a checkpoint that was put aside for another of its name comes back,
    unless that one took the name.
    """
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        name = path.name.removeprefix(".")
        if name == path.name:
            continue
        if path.suffix == _ASIDE and not (own := root / name.removesuffix(_ASIDE)).exists():
            path.rename(own)
        elif path.suffix in {_ASIDE, ".tmp", ".trash"}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _put(temporary: Path, path: Path) -> None:
    """Give a whole checkpoint its name; one that has it already stays aside until then."""
    aside = path.with_name(f".{path.name}{_ASIDE}")
    if not path.exists():
        temporary.rename(path)
        return
    if aside.exists():
        shutil.rmtree(aside)
    if (path.parent / INDEX).exists():  # whoever reads the pointers finds at every instant what they name
        write_pointers(
            path.parent, [e for e in load_index(path.parent) if checkpoint_path(path.parent, e.step) != path]
        )
    path.rename(aside)
    try:
        temporary.rename(path)
    except OSError:
        aside.rename(path)
        raise
    shutil.rmtree(aside)


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


def _save_weights(tensors: Mapping[str, Tensor], path: Path) -> None:
    with as_the_system_said(path):
        save_file(_own_storage(tensors), path)


def _save_plain(value: dict[str, Any], path: Path) -> None:
    # Through a file of Python's: what the system says to a write inside torch's C++ is then kept as the context.
    with as_the_system_said(path), path.open("wb") as file:
        torch.save(value, file)
    try:
        load_plain(path)
    except StorageError as error:
        raise TypeError(
            f"{path.name} must hold tensors and plain values only, so that reading it executes nothing: {error}"
        ) from error

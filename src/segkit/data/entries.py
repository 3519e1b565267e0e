"""One entry of the store on disk: written whole or not at all, and found out where it is damaged."""

import contextlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Int

from segkit.data import fields
from segkit.data.preprocessing import file_hash
from segkit.ops.keyed_random import generator
from segkit.planning.plan import Plan
from segkit.runs.leftovers import temporary_beside
from segkit.types import PreparedCase

FORMAT = 1
"""Counts up whenever the same files and settings give other voxels or another layout."""
MAX_LOCATIONS = 10_000
"""Voxels of each class that are kept for foreground oversampling."""

Verify: TypeAlias = Literal["size", "content"]


def damage(folder: Path, *, verify: Verify) -> str | None:
    """What is wrong with an entry, or None."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        for name, record in meta["files"].items():
            path = folder / name
            if path.stat().st_size != record["bytes"]:
                return f"{name} has {path.stat().st_size} bytes instead of {record['bytes']}"
            if verify == "content" and file_hash(path) != record["sha256"]:
                return f"{name} does not match its checksum"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"meta.json cannot be read: {error}"
    return None


def class_locations(label: Int[np.ndarray, "*S"], *, num_classes: int, seed: int) -> dict[int, Int[np.ndarray, "N D"]]:
    """Voxel indices (N, D) int32 of each foreground class: all of them, or 10,000 drawn without replacement."""
    locations: dict[int, np.ndarray] = {}
    for index in range(1, num_classes):
        flat = np.flatnonzero(label == index)
        if flat.size > MAX_LOCATIONS:
            chosen = generator(seed, index, 0).choice(flat.size, MAX_LOCATIONS, replace=False)
            flat = flat[np.sort(chosen)]
        if flat.size:
            locations[index] = np.stack(np.unravel_index(flat, label.shape), axis=1).astype(np.int32)
    return locations


def write_entry(folder: Path, *, prepared: PreparedCase, plan: Plan, kept: Sequence[str]) -> None:
    """Fill a folder with the arrays of a case; `meta.json`, with their checksums, comes last.

    Args:
        folder: An empty folder.
        prepared: The case.
        plan: For spacing and classes.
        kept: Of `fields.STORED_FIELDS`, what is kept beside the label.
    """
    arrays: dict[str, np.ndarray | None] = {
        "image": prepared.image,
        "label": prepared.label,
        "valid": prepared.valid,
        "native_label": prepared.native_label,
        "native_instances": prepared.native_instances,
    }
    if kept and prepared.label is not None:
        arrays["instances"] = ids = fields.instances(prepared, spacing=plan.spacing)
        if "cells" in kept:
            arrays["cells"] = fields.cells(ids, spacing=plan.spacing)
    ranges: dict[str, list[int]] = {}
    if prepared.label is not None:
        seed = int(prepared.content_hash[:15], 16)
        found = class_locations(prepared.label, num_classes=plan.num_classes, seed=seed)
        start = 0
        for index, voxels in found.items():
            ranges[str(index)] = [start, start + len(voxels)]
            start += len(voxels)
        if found:
            arrays["locations"] = np.concatenate(list(found.values()))
    files: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        if array is not None:
            path = folder / f"{name}.npy"
            np.save(path, np.ascontiguousarray(array), allow_pickle=False)
            files[path.name] = {"bytes": path.stat().st_size, "sha256": file_hash(path)}
    meta = {
        "format": FORMAT,
        "files": files,
        "shape": list(prepared.image.shape[1:]),
        "locations": ranges,
        "geometry": asdict(prepared.geometry),
        "content_hash": prepared.content_hash,
    }
    (folder / "meta.json").write_text(json.dumps(meta))


def publish(write: Callable[[Path], None], folder: Path) -> None:
    """Let `write` fill a folder beside the final one, then rename; the first of several processes wins."""
    temporary = temporary_beside(folder)
    temporary.mkdir(parents=True)
    try:
        write(temporary)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove(path: Path) -> None:
    """Take an entry away in one step; whoever has it mapped keeps its pages."""
    if path.is_file():
        path.unlink(missing_ok=True)
        return
    trash = temporary_beside(path, suffix=".trash")
    with contextlib.suppress(FileNotFoundError):
        path.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)

"""Files that are either old or new, never half: written beside their name, synced, renamed.

`os.replace` within one folder is atomic on every POSIX file system; the temporary file therefore lies in the
target's own folder and never in $TMPDIR, from where a move could be a copy. Synchronising file and folder makes
the same true after a power cut.
"""

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from segkit.runs.untrusted import MAX_JSON_BYTES, MAX_YAML_BYTES, parse_json, parse_yaml, read_regular

STORAGE_FAULTS = frozenset({errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EFBIG})
"""What a full or failing disk answers; everything else is a mistake of somebody's."""


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one.

    Args:
        path: Target; its folder must exist.
        content: Text is written as UTF-8.

    Raises:
        OSError: As the system gave it; the old file is untouched and nothing is left beside it.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a write or a sync that fails does not say of what
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in `folder` to the disk; file systems that cannot sync a folder are passed over."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # FUSE and some network drives answer EINVAL or ENOTSUP: they have no such operation
        if error.errno in STORAGE_FAULTS:
            raise
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Bring the content of `path` to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as JSON, keys in the order given, floats to the last bit; NaN becomes null."""
    atomic_write(path, json.dumps(_without_nan(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a mapping in JSON.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not JSON (also for bytes that are no UTF-8), no mapping, no regular file, or too large.
    """
    try:
        return _mapping(parse_json(read_regular(path, limit=MAX_JSON_BYTES)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write_yaml(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as YAML, keys in the order given."""
    atomic_write(path, yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True, width=110))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping in YAML of plain values; tags that name Python objects are errors: nothing is executed.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not such YAML, no mapping, no regular file, or grows beyond all measure when unfolded.
    """
    try:
        return _mapping(parse_yaml(read_regular(path, limit=MAX_YAML_BYTES)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of the content of `path`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_tree(folder: Path) -> None:
    """Remove `folder`; it loses its name first, so that a half-removed folder never passes for a damaged one."""
    doomed = folder.with_name(f".{folder.name}.{os.getpid()}.trash")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, no mapping")
    return value


def _without_nan(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

"""Reading tensors from files that somebody else may have made: they are data, nothing in them is executed.

`torch.load(weights_only=True)` builds tensors and plain values only. What it leaves open is closed before it sees
the file: only the zip archive that `torch.save` writes is opened (no bare pickle, no tar of old versions, no
TorchScript), and only where it unpacks to what lies on the disk, so that no archive grows in memory. What it made is
looked through afterwards: a tensor must hold all the numbers that it claims.
"""

import pickle
import re
import stat
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from segkit.errors import StorageError
from segkit.ops.dense import require_dense

MAX_RECORDS = 200_000
_SCRIPT = ("code", "constants.pkl")


def load_plain(path: Path, *, named: Sequence[tuple[Callable[..., Any], str]] = ()) -> dict[str, Any]:
    """Read a mapping of tensors and plain values that `torch.save` wrote, to the CPU.

    Args:
        path: The file.
        named: What may stand in it beside these: (what is called, the name that the file calls it by). Where given,
            tensors are mapped from the file, so that what is not looked at is not read; they must not be written to.

    Raises:
        StorageError: It is no such file, or a tensor in it is not all there; nothing of it was executed.
    """
    try:
        _require_plain_archive(path)
        with torch.serialization.safe_globals([*named]):
            value = torch.load(path, map_location="cpu", weights_only=True, mmap=bool(named))
        require_dense(value)
    except Exception as error:  # a hostile pickle makes the unpickler raise whatever it likes
        why = f"{path.name}: it cannot be read as tensors and plain values: {_first_line(error)}"
        raise StorageError(
            "The checkpoint is damaged, or no checkpoint of segkit.", where=str(path), why=why
        ) from error
    if not isinstance(value, dict):
        why = f"{path.name} holds a {type(value).__name__}, no mapping"
        raise StorageError("The checkpoint is damaged, or no checkpoint of segkit.", where=str(path), why=why)
    return value


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file to the CPU.

    Raises:
        StorageError: It is no such file: a header that lies about sizes, an unknown type, a truncated file.
    """
    try:
        return load_file(path)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, MemoryError, SafetensorError) as error:
        why = f"{path.name}: it cannot be read as safetensors: {_first_line(error)}"
        raise StorageError(
            "The checkpoint is damaged, or no checkpoint of segkit.", where=str(path), why=why
        ) from error


def _require_plain_archive(path: Path) -> None:
    """Refuse what `torch.save` does not write.

    Raises:
        ValueError: With what it is instead.
        OSError: It cannot be read.
    """
    facts = path.lstat()
    if not stat.S_ISREG(facts.st_mode):
        raise ValueError("it is no regular file")
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeError) as error:
        raise ValueError(f"it is no zip archive of tensors ({error})") from error
    names = [record.filename for record in records]
    if len(names) > MAX_RECORDS or len(set(names)) != len(names):
        raise ValueError(f"it holds {len(names)} records, {len(set(names))} of different names")
    for record in records:
        parts = PurePosixPath(record.filename).parts
        if record.filename.startswith("/") or ".." in parts or "\\" in record.filename or len(parts) < 2:
            raise ValueError(f"a record is named {record.filename!r}")
        if parts[1] in _SCRIPT:
            raise ValueError("it is a TorchScript archive, which holds code")
        if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
            raise ValueError(f"the record {record.filename!r} is packed: {record.file_size} bytes once unpacked")
    if (size := sum(record.file_size for record in records)) > facts.st_size:
        raise ValueError(f"its records announce {size} bytes, the file has {facts.st_size}")


def _first_line(error: Exception) -> str:
    """What is wrong, in a line; torch's advice to load the file unsafely is left out."""
    if isinstance(error, pickle.UnpicklingError):
        found = re.search(r"Unpickler error: ([^\n]*?(?: was not an allowed global|\n|$))", str(error))
        return found[1][:300] if found else "it holds more than tensors and plain values"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"

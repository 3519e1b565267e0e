"""A corpus of files that execute something, or lie, when they are read without care; made in the test, never kept."""

import hashlib
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segkit.runs.manifest import MANIFEST, Entry, manifest_of


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.canary}'",)


Maker = Callable[[Path, Path], None]


def _zip(path: Path, records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, content)


def _tar(path: Path, canary: Path) -> None:
    """torch's format of before 2018: a tar of `sys_info`, `pickle`, `storages` and `tensors`."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps(Evil(canary))
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def _script(path: Path, canary: Path) -> None:
    code = b"class Net(Module):\n  def forward(self: __torch__.Net, x: Tensor) -> Tensor:\n    return x\n"
    _zip(path, {"a/data.pkl": pickle.dumps({}), "a/code/__torch__.py": code, "a/constants.pkl": pickle.dumps(())})


def _bomb(path: Path, canary: Path) -> None:
    torch.save({"a": torch.zeros(1 << 20)}, path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    _zip(path, {name: b"\0" * (1 << 26) if "/data/" in name else c for name, c in records.items()}, 8)


def _named(name: str) -> Maker:
    def make(path: Path, canary: Path) -> None:
        torch.save({"a": torch.zeros(1)}, path)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, b"x")

    return make


def _announced(path: Path, canary: Path) -> None:
    """A central directory that announces 2 GiB for a record of some bytes."""
    torch.save({"a": torch.zeros(64)}, path)
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\1\2", 0, content.rindex(b"PK\5\6"))
    struct.pack_into("<II", content, at + 20, 2**31, 2**31)
    path.write_bytes(content)


def _array(path: Path, canary: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([Evil(canary)], dtype=object))


def _arrays(path: Path, canary: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.array([Evil(canary)], dtype=object))


PICKLES: dict[str, Maker] = {
    "reduce": lambda path, canary: torch.save({"a": Evil(canary)}, path),
    "old format": lambda path, c: torch.save({"a": Evil(c)}, path, _use_new_zipfile_serialization=False),
    "bare pickle": lambda path, canary: path.write_bytes(pickle.dumps({"a": Evil(canary)})),
    "stacked pickles": lambda path, c: path.write_bytes(pickle.dumps({"a": 1}) + pickle.dumps(Evil(c))),
    "tar": _tar,
    "object array": _array,
    "archive of object arrays": _arrays,
    "TorchScript": _script,
    "zip bomb": _bomb,
    "record that leads out": _named("../../canary"),
    "record from the root": _named("/canary"),
    "announced size": _announced,
    "tensor of terabytes": lambda path, c: torch.save({"a": [{"b": torch.zeros(1).expand(2**40)}]}, path),
    "no mapping": lambda path, canary: torch.save([torch.zeros(1)], path),
    "text": lambda path, canary: path.write_text("import os"),
    "empty": lambda path, canary: path.write_bytes(b""),
}  # fmt: skip


def _safetensors(header: bytes, *, length: int | None = None, data: bytes = b"") -> Maker:
    size = len(header) if length is None else length
    return lambda path, canary: path.write_bytes(struct.pack("<Q", size) + header + data)


def _tensor(**facts: object) -> bytes:
    return json.dumps({"network.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **facts}}).encode()


WEIGHTS: dict[str, Maker] = {
    "pickle": PICKLES["reduce"],
    "header of 2^60 bytes": _safetensors(b"{}", length=2**60),
    "header beyond the end": _safetensors(b"{}", length=1000),
    "tensor beyond the end": _safetensors(_tensor(shape=[2**40], data_offsets=[0, 2**42])),
    "shape that lies": _safetensors(_tensor(shape=[7]), data=bytes(4)),
    "unknown type": _safetensors(_tensor(dtype="PICKLE"), data=bytes(4)),
    "deep header": _safetensors(b'{"a":' * 20_000),
    "other tensors": _safetensors(_tensor(), data=bytes(4)),
}


def forge(folder: Path, name: str, make: Maker, canary: Path) -> None:
    """Put an evil file into a checkpoint, with a manifest whose checksums are true."""
    old = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).unlink()
    (folder / name).unlink()
    make(folder / name, canary)
    text = manifest_of(folder, Entry.from_json(old["entry"]), contents=old["contents"], run=old.get("run"))
    (folder / MANIFEST).write_text(text)


def signed(manifest: dict[str, Any]) -> str:
    """The text of a manifest with the checksum that fits it: whoever makes an evil one can do this too."""
    checksum = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    return json.dumps({**manifest, "checksum": checksum})

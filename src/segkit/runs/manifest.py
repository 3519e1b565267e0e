"""What a checkpoint says about itself: its entry, its files and their checksums. Needs no torch to be read."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segkit.errors import StorageError
from segkit.runs.environment import package_version
from segkit.runs.files import read_json, sha256
from segkit.runs.identity import identity
from segkit.runs.untrusted import is_regular

FORMAT = 1
MODEL, TRAINING, OPTIMIZER, STATE, MANIFEST = (
    "model.safetensors",
    "training.safetensors",
    "optimizer.pt",
    "state.pt",
    "MANIFEST.json",
)
_FOLDER = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Entry:
    """What a checkpoint stands for.

    Args:
        step: Optimizer steps taken.
        n: Training samples consumed; also the position of the journals.
        epoch: Epochs finished.
        validated_n: n at the end of the latest validation, 0 before the first.
        score: `val/score` of exactly these weights; None where they were not validated or the score is NaN.
        per_case: Score of each tuning case, NaN where a case has none.
    """

    step: int
    n: int
    epoch: int
    validated_n: int = 0
    score: float | None = None
    per_case: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """A score that is not a number is no score: it must win nothing."""
        if self.score is not None and not math.isfinite(self.score):
            object.__setattr__(self, "score", None)

    @property
    def validated(self) -> bool:
        """Whether the score belongs to these weights."""
        return self.score is not None and self.validated_n == self.n

    def to_json(self) -> dict[str, Any]:
        """Plain values; NaN becomes null."""
        per_case = {case: value if math.isfinite(value) else None for case, value in self.per_case.items()}
        return {
            "step": self.step,
            "n": self.n,
            "epoch": self.epoch,
            "validated_n": self.validated_n,
            "score": self.score,
            "per_case": per_case,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Entry":
        """The inverse of `to_json`.

        Raises:
            ValueError: `value` is not an entry.
        """
        try:
            return cls(
                step=_count(value["step"]),
                n=_count(value["n"]),
                epoch=_count(value["epoch"]),
                validated_n=_count(value["validated_n"]),
                score=None if value["score"] is None else float(value["score"]),
                per_case={str(k): math.nan if v is None else float(v) for k, v in value["per_case"].items()},
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"not the entry of a checkpoint: {error!r}") from error


class NewerFormat(StorageError):
    """A checkpoint of a format that this version does not know: whole, and not ours to pass over or remove."""


def checkpoint_path(root: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies below the folder of checkpoints."""
    return root / f"step-{step:08d}"


def checkpoint_steps(root: Path) -> list[int]:
    """Steps of the checkpoint folders that are there, ascending, whole or damaged."""
    if not root.is_dir():
        return []
    return sorted(int(m[1]) for path in root.iterdir() if (m := _FOLDER.fullmatch(path.name)) and path.is_dir())


def manifest_of(folder: Path, entry: Entry, *, contents: list[str], run: str | None = None) -> str:
    """Text of the manifest for the files that lie in `folder`.

    Args:
        folder: A checkpoint folder without its manifest.
        entry: What the checkpoint stands for.
        contents: Names of the parts of its state, for people.
        run: Id of the run that it belongs to, where that has one.
    """
    files = {f.name: {"sha256": sha256(f), "bytes": f.stat().st_size} for f in sorted(folder.iterdir())}
    manifest = {
        "format": FORMAT,
        **({"run": run} if run is not None else {}),
        "entry": entry.to_json(),
        "contents": contents,
        "versions": {name: package_version(name) for name in ("segkit", "torch", "lightning")},
        "files": files,
    }
    return json.dumps({**manifest, "checksum": digest_of(manifest)}, indent=1)


def digest_of(manifest: Mapping[str, Any]) -> str:
    """Checksum of what a manifest says, by which one checkpoint is told from another of its name."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def read_manifest(path: Path) -> dict[str, Any]:
    """Read and check MANIFEST.json of the checkpoint folder `path`, not the files that it names.

    Raises:
        NewerFormat: It is of a format that this version does not know.
        StorageError: It is missing, damaged, or of another run.
    """
    try:
        if (path / MANIFEST).is_symlink():
            raise ValueError("a link stands in its place")
        manifest = read_json(path / MANIFEST)
        _require_known(manifest["format"], path)
        checksum = manifest.pop("checksum")
        Entry.from_json(manifest["entry"])
        facts = {name: (_hex(f["sha256"]), _count(f["bytes"])) for name, f in manifest["files"].items()}
        if not all(isinstance(name, str) for name in [*manifest["contents"]]):
            raise TypeError("its contents are no names")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path / MANIFEST, f"it cannot be read: {error!r}") from error
    if checksum != digest_of(manifest):
        raise damaged(path / MANIFEST, "its checksum does not fit its content")
    if not {MODEL, OPTIMIZER, STATE} <= set(facts) <= {MODEL, TRAINING, OPTIMIZER, STATE}:
        raise damaged(path / MANIFEST, f"it names other files than a checkpoint has: {sorted(facts)}")
    if _is_foreign(path, manifest):
        raise StorageError(
            "The checkpoint belongs to another run.",
            where=str(path),
            why=f"{path.name}: it is of run {str(manifest['run'])[:32]!r}, the folder of run {identity(path.parent)!r}",
        )
    return manifest


def _require_known(stated: object, path: Path) -> None:
    if isinstance(stated, bool) or not isinstance(stated, int) or stated < 1:
        raise ValueError(f"format {stated!r}")
    if stated > FORMAT:
        raise NewerFormat(
            "The checkpoint was written by a newer segkit.",
            where=str(path),
            why=f"format {stated}, this version reads up to {FORMAT}",
            mend="install the version that the run was made with, see env.json",
        )


def _count(value: object) -> int:
    """A whole number that fits 63 bits: what is larger counts nothing, and prints for ever."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"{str(value)[:40]!r} is no count")
    return value


def _hex(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError(f"{str(value)[:40]!r} is no sha256")
    return value


def is_foreign(path: Path) -> bool:
    """Whether the checkpoint folder `path` came from another run than the folder around it; unnamed ones did not."""
    try:
        return _is_foreign(path, read_json(path / MANIFEST))
    except (OSError, ValueError):  # no manifest that can be read: damaged, and whose it was is not known
        return False


def _is_foreign(path: Path, manifest: Mapping[str, Any]) -> bool:
    own = identity(path.parent)
    return own is not None and manifest.get("run", own) != own


def verify_checkpoint(path: Path, *, files: frozenset[str] | None = None) -> Entry:
    """Compare every file of a checkpoint with the manifest.

    Args:
        path: The checkpoint's folder.
        files: Names to compare; all by default.

    Returns:
        What the checkpoint stands for.

    Raises:
        StorageError: A file is missing, has another size or another checksum; names the file.
    """
    manifest = check_sizes(path, files=files)
    for name, facts in manifest["files"].items():
        if (files is None or name in files) and sha256(path / name) != facts["sha256"]:
            raise damaged(path / name, "its checksum is another one than when it was written")
    return Entry.from_json(manifest["entry"])


def check_sizes(path: Path, *, files: frozenset[str] | None = None) -> dict[str, Any]:
    """Compare the sizes of a checkpoint's files with the manifest, which costs nothing, and return the manifest.

    Raises:
        StorageError: A file is missing, is a link, or has another size; names the file.
    """
    manifest = read_manifest(path)
    for name, facts in manifest["files"].items():
        if files is not None and name not in files:
            continue
        file = path / name
        if not is_regular(file):
            raise damaged(file, "a link stands in its place" if file.is_symlink() else "it is missing")
        if file.stat().st_size != facts["bytes"]:
            raise damaged(file, f"it has {file.stat().st_size} bytes instead of {facts['bytes']}")
    return manifest


def damaged(path: Path, why: str) -> StorageError:
    """The error of a checkpoint whose bytes are not what was written."""
    return StorageError("The checkpoint is damaged.", where=str(path), why=f"{path.name}: {why}")

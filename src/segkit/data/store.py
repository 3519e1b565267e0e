"""The store of prepared cases: one folder an entry, found again by content.

An entry's key is the sha256 of what decides its voxels: the contents of the case's files, the preprocessing part
of the plan, the extra fields and the format number. Arrays are plain .npy files, read memory-mapped, so that a
patch costs the pages it lies on. `meta.json` is written last, in a temporary folder that is then renamed: an
entry is there whole or not at all. An entry that does not agree with its meta.json is rebuilt with a warning.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from segkit.data import fields
from segkit.data.annotated import annotated_indices
from segkit.data.entries import FORMAT, Verify, damage, publish, remove, write_entry
from segkit.data.parallel import parallel_map
from segkit.data.preprocessing import file_hash, preprocess, read_case
from segkit.data.stored_case import StoredCase, stored_case
from segkit.errors import DataError
from segkit.planning.fingerprint import CaseFacts, case_facts
from segkit.planning.plan import Plan
from segkit.runs.leftovers import abandoned, discard, temporary_beside
from segkit.types import Case, Labels, PreparedCase

logger = logging.getLogger(__name__)

_UNREACHABLE = frozenset({errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
_RACY_SECONDS = 2.0
_STALE_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class Store:
    """Prepared cases under a folder; any number of processes may use it at once.

    Args:
        root: The folder; made when first written to.
    """

    root: Path

    def get(self, case: Case, plan: Plan) -> PreparedCase:
        """The prepared case, arrays memory-mapped; made if it is not there."""
        return self.prepare(case, plan).load()

    def prepare(
        self, case: Case, plan: Plan, *, needs: frozenset[str] = frozenset(), verify: Verify = "size"
    ) -> StoredCase:
        """The entry of a case, made if it is missing or damaged.

        Args:
            case: Files.
            plan: Its preprocessing part counts.
            needs: `loss.needs`; instances and cells are kept beside the label where they are named.
            verify: "size" looks at the files' sizes, "content" also at their checksums.

        Raises:
            DataError: For files that cannot be used.
        """
        kept = sorted(needs & fields.STORED_FIELDS)
        folder = self.root / "cases" / self.key(case, plan, kept)
        annotated = annotated_indices(case, plan.labels)
        if folder.exists():
            fault = damage(folder, verify=verify)
            if fault is None:
                return stored_case(case, folder, annotated=annotated)
            logger.warning("prepared case %s is damaged (%s): made again", case.case_id, fault)
            remove(folder)
        prepared = preprocess(case, plan, content_hash=self.content_hash(case.images))
        publish(partial(write_entry, prepared=prepared, plan=plan, kept=kept), folder)
        return stored_case(case, folder, annotated=annotated)

    def prepare_all(
        self,
        cases: Sequence[Case],
        plan: Plan,
        *,
        needs: frozenset[str] = frozenset(),
        workers: int = 0,
        on_done: Callable[[int, int], None] | None = None,
    ) -> list[StoredCase]:
        """`prepare` for many cases, checksums included, by several processes."""
        self._sweep()
        one = partial(self.prepare, plan=plan, needs=needs, verify="content")
        return parallel_map(one, cases, workers=workers, on_done=on_done)

    def facts(self, case: Case, labels: Labels) -> CaseFacts:
        """What the case contributes to the fingerprint; remembered by content."""
        parts = {"files": self._file_hashes(case), "labels": asdict(labels)}
        return CaseFacts.from_json(self.remember("facts", parts, partial(_facts, case, labels)))

    def facts_all(
        self,
        cases: Sequence[Case],
        labels: Labels,
        *,
        workers: int = 0,
        on_done: Callable[[int, int], None] | None = None,
    ) -> list[CaseFacts]:
        """`facts` for many cases, by several processes."""
        return parallel_map(partial(self.facts, labels=labels), cases, workers=workers, on_done=on_done)

    def remember(self, kind: str, parts: Any, compute: Callable[[], Any]) -> Any:  # noqa: ANN401  JSON values
        """A JSON value that depends on nothing but `parts`, computed once.

        Args:
            kind: What it is; a folder's name.
            parts: JSON-clean; everything the value depends on.
            compute: Makes the value where it is not known.
        """
        path = self.root / kind / f"{_digest({'format': FORMAT, 'parts': parts})}.json"
        if path.exists():
            try:
                return json.loads(path.read_text())
            except (OSError, ValueError) as error:
                logger.warning("%s is damaged (%s): made again", path, error)
        value = compute()
        _write_text(path, json.dumps(value))
        return value

    def key(self, case: Case, plan: Plan, kept: Sequence[str] = ()) -> str:
        """Name of the case's entry."""
        parts = {
            "format": FORMAT,
            "files": self._file_hashes(case),
            "preprocessing": plan.preprocessing(),
            "kept": list(kept),
        }
        return _digest(parts | {"fields": fields.FORMAT} if kept else parts)

    def content_hash(self, paths: Sequence[Path]) -> str:
        """`preprocessing.content_hash_of`, without reading a file again that has not changed."""
        digest = hashlib.sha256()
        for path in paths:
            digest.update(self.file_hash(path).encode())
        return digest.hexdigest()

    def file_hash(self, path: Path) -> str:
        """sha256 of a file, remembered by its name, size and times.

        A file that changed within the last two seconds is always read: the clock of a file system is coarse.

        Raises:
            DataError: For a file that is not there or may not be read.
        """
        try:
            return self._file_hash(path)
        except OSError as error:
            if error.errno not in _UNREACHABLE:
                raise
            mend = "put the file back, or mend its permissions"
            raise DataError("a file cannot be read", where=str(path), why=str(error.strerror), mend=mend) from error

    def _file_hash(self, path: Path) -> str:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):  # a FIFO would be waited for, a device read for ever
            mend = "put the image file itself there, or take the case out of the data set"
            raise DataError("no regular file stands where an image should be", where=str(path), mend=mend)
        newest = max(facts.st_mtime_ns, facts.st_ctime_ns)
        if time.time_ns() - newest < _RACY_SECONDS * 1e9:
            return file_hash(path)
        parts = [str(path.absolute()), facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]
        return str(self.remember("hashes", parts, partial(file_hash, path)))

    def _file_hashes(self, case: Case) -> dict[str, Any]:
        label = None if case.label is None else self.file_hash(case.label)
        return {"images": [self.file_hash(path) for path in case.images], "label": label}

    def _sweep(self) -> None:
        """Remove what dead processes left half-written or half-removed."""
        for leftover in (path for path in self.root.glob("*/.*") if path.suffix in {".tmp", ".trash"}):
            with contextlib.suppress(FileNotFoundError):
                # Without a maker in its name it is an earlier version's: those know no more than a day.
                if abandoned(leftover) or time.time() - leftover.lstat().st_mtime > _STALE_SECONDS:
                    discard(leftover)


def _facts(case: Case, labels: Labels) -> dict[str, Any]:
    raw = read_case(case, labels)
    if raw.label is None:
        raise ValueError(f"case {case.case_id} has no label: it cannot be part of a fingerprint")
    return case_facts(
        raw.image,
        raw.label,
        spacing=raw.geometry.native_spacing,
        native_shape=raw.geometry.native_shape,
        num_classes=labels.num_classes,
        unit=raw.geometry.unit,
    ).to_json()


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _digest(value: Any) -> str:  # noqa: ANN401  JSON values
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

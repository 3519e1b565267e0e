"""One entry of the store, as the sampler, the patch reader and the validation see it.

A `StoredCase` is a few numbers and a path: it is cheap to send to a worker, which maps the arrays itself. Nothing
is kept open between two reads, so any number of cases needs no more than a handful of file descriptors.
"""

import errno
import json
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segkit.errors import DataError
from segkit.types import Case, Geometry, PreparedCase, Size

_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


@dataclass(frozen=True)
class StoredCase:
    """A prepared case on disk.

    Args:
        case_id: Case.
        group: Group (person).
        folder: The entry.
        shape: Voxels on the plan's grid.
        names: Arrays that the entry holds.
        locations: Rows of the locations array that belong to each foreground class that occurs.
        geometry: The way back to the file.
        content_hash: Of the image files.
        annotated: See `PreparedCase`: a declaration beside the files, and no part of the entry.
    """

    case_id: str
    group: str
    folder: Path
    shape: Size
    names: frozenset[str]
    locations: Mapping[int, tuple[int, int]]
    geometry: Geometry
    content_hash: str
    annotated: frozenset[int] | None = None

    def path(self, name: str) -> Path:
        """The file of an array."""
        return self.folder / f"{name}.npy"

    def array(self, name: str) -> np.ndarray:
        """One array of the entry, memory-mapped read-only.

        Raises:
            DataError: The file cannot be read; names the case and the file.
        """
        try:
            mapped: np.ndarray = np.load(self.path(name), mmap_mode="r", allow_pickle=False)
        except RuntimeError:
            raise  # never the file's: a signal handler of torch tells in this way that a worker died
        except Exception as error:
            raise unreadable(self, name, error) from error
        return mapped

    def optional(self, name: str) -> np.ndarray | None:
        """The same, or None where the entry does not hold it."""
        return self.array(name) if name in self.names else None

    @property
    def classes(self) -> tuple[int, ...]:
        """Foreground classes that occur in the case."""
        return tuple(sorted(self.locations))

    def location(self, index: int, row: int) -> tuple[int, ...]:
        """Voxel number `row` of those kept for class `index`."""
        start, stop = self.locations[index]
        if not 0 <= row < stop - start:
            raise IndexError(f"class {index} of case {self.case_id} has {stop - start} voxels, asked for {row}")
        return tuple(int(i) for i in self.array("locations")[start + row])

    def load(self) -> PreparedCase:
        """The whole case, arrays memory-mapped."""
        return PreparedCase(
            case_id=self.case_id,
            group=self.group,
            image=self.array("image"),
            valid=self.optional("valid"),
            label=self.optional("label"),
            native_label=self.optional("native_label"),
            native_instances=self.optional("native_instances"),
            geometry=self.geometry,
            content_hash=self.content_hash,
            annotated=self.annotated,
            instances=self.optional("instances"),
            cells=self.optional("cells"),
        )


def unreadable(case: StoredCase, name: str, error: BaseException) -> DataError:
    """Say that an array of a case could not be read, in words that any process can pass on."""
    short = is_shortage(error)
    return DataError(
        "a prepared case cannot be read",
        where=f"case {case.case_id}, {case.path(name)}",
        why=traceback.format_exception_only(error)[-1].strip(),
        mend="use fewer data.workers, or a machine with higher limits (ulimit -a)"
        if short
        else "run the same command again: damaged entries are made anew",
    )


def is_shortage(error: BaseException | None) -> bool:
    """Whether the machine lacked memory or files: no fault of what was being read."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _SHORTAGES)


def stored_case(case: Case, folder: Path, *, annotated: frozenset[int] | None) -> StoredCase:
    """The entry in `folder`, which must be whole, as the one of `case`.

    Args:
        case: Whose it is.
        folder: The entry.
        annotated: The classes annotated in the case, by index; None: all of them.
    """
    meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
    geometry = meta["geometry"]
    return StoredCase(
        case_id=case.case_id,
        group=case.group,
        folder=folder,
        shape=tuple(meta["shape"]),
        names=frozenset(name.removesuffix(".npy") for name in meta["files"]),
        locations={int(index): (start, stop) for index, (start, stop) in meta["locations"].items()},
        geometry=Geometry(
            permutation=tuple(geometry["permutation"]),
            flips=tuple(geometry["flips"]),
            native_shape=tuple(geometry["native_shape"]),
            native_spacing=tuple(geometry["native_spacing"]),
            crop=tuple((start, stop) for start, stop in geometry["crop"]),
            unit=geometry["unit"],
        ),
        content_hash=meta["content_hash"],
        annotated=annotated,
    )

"""Where each loader worker is at work, in memory that outlives the worker.

A worker that is killed, crashes or hangs cannot say what it was reading. So it says so beforehand: three numbers,
written where the training process sees them, some hundred nanoseconds each time.
"""

import mmap
import os
import struct
import tempfile
import weakref
from contextlib import suppress
from multiprocessing.reduction import DupFd
from typing import Any, NamedTuple

from torch.utils.data import get_worker_info

ACTIVITIES = ("waiting", "image", "label", "valid", "instances", "cells", "locations", "batch")
"""What a worker does: nothing, reading the array of that name, putting samples together to a batch."""

_RECORD = struct.Struct("=qqq")


class Crumb(NamedTuple):
    """What a worker was last at.

    Args:
        activity: One of `ACTIVITIES`.
        n: Running number of the sample.
        case: Index of the case.
    """

    activity: str
    n: int
    case: int


class Crumbs:
    """One crumb for each worker, in a file without a name that every worker maps.

    Nothing is left of it when the last process that has it open is gone, however these end. It is handed to a
    worker when that is started, and only then.

    Args:
        workers: Number of workers.
    """

    def __init__(self, workers: int) -> None:
        self._descriptor = _nameless_file()
        weakref.finalize(self, os.close, self._descriptor)
        # Written, not only made longer: a page that finds no room when it is first touched would be a bus error.
        os.write(self._descriptor, bytes(_RECORD.size * max(workers, 1)))
        self._map = mmap.mmap(self._descriptor, 0)

    def drop(self, activity: str, *, n: int = 0, case: int = 0) -> None:
        """Note what this worker is about to do; does nothing in a process that is no worker."""
        worker = get_worker_info()
        if worker is not None:
            _RECORD.pack_into(self._map, worker.id * _RECORD.size, ACTIVITIES.index(activity), n, case)

    def last(self, worker: int) -> Crumb:
        """What a worker was last at, whether or not it still lives."""
        activity, n, case = _RECORD.unpack_from(self._map, worker * _RECORD.size)
        return Crumb(ACTIVITIES[activity], n, case)

    def __getstate__(self) -> dict[str, Any]:
        return {"descriptor": DupFd(self._descriptor)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        descriptor = state["descriptor"].detach()
        self._map = mmap.mmap(descriptor, 0)
        os.close(descriptor)  # the mapping has its own


def _nameless_file() -> int:
    """A file that no folder holds: in memory where the system has that, so that a full disk is no matter."""
    if hasattr(os, "memfd_create"):
        with suppress(OSError):  # some containers do not allow the call
            return os.memfd_create("segkit-crumbs")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())

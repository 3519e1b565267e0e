"""Is there room for the batches that loader workers hand over?

They go through /dev/shm, of which a container has 64 MB unless told otherwise. Where it is too small a worker dies
by a bus error in the middle of a run; this is better known before.
"""

import os
from pathlib import Path

_FOLDER = Path("/dev/shm")
_IN_USE = 2
"""Batches that the training process still holds: the one it trains on, and the one it was just given."""

SHM_ADVICE = "start the container with --shm-size=8g, or set data.workers=0"


def free_bytes() -> int | None:
    """Free shared memory; None where the system has no such folder."""
    try:
        facts = os.statvfs(_FOLDER)
    except OSError:
        return None
    return facts.f_bavail * facts.f_frsize


def affordable_workers(wanted: int, *, batch_bytes: int, prefetch: int, free: int | None) -> int:
    """The most workers, up to `wanted`, whose batches fit.

    Args:
        wanted: Workers asked for.
        batch_bytes: Of one batch.
        prefetch: Batches that a worker has under way.
        free: Free shared memory in bytes; None: not limited.
    """
    if free is None:
        return wanted
    fits = (free // batch_bytes - _IN_USE) // prefetch
    return max(0, min(wanted, fits))

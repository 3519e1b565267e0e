"""Memory of this process and of its children, in MB (10^6 bytes)."""

import os
import resource
import sys
from pathlib import Path


def peak_mb() -> float:
    """The most memory this process has had resident since it began.

    On Linux `VmHWM`, since `ru_maxrss` keeps what the parent had at the time of the fork.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return _field(status.read_text(), "VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def children_mb() -> float:
    """What the living descendants of this process have in memory, pages that several share counted once.

    0 where the system does not tell.
    """
    total = 0.0
    for child in _descendants(os.getpid()):
        rollup = Path(f"/proc/{child}/smaps_rollup")
        try:
            total += _field(rollup.read_text(), "Pss")
        except OSError:  # it has ended since
            continue
    return total


def _descendants(process: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *_descendants(child)]
    return found


def _field(text: str, name: str) -> float:
    """A field of a file in /proc, which counts in KiB, in MB."""
    return next((float(line.split()[1]) * 1024 / 1e6 for line in text.splitlines() if line.startswith(f"{name}:")), 0.0)

"""How much memory is free, of the GPU or of the machine and of the container it may run in, and how much is held."""

from collections.abc import Iterator
from pathlib import Path

import torch

_UNLIMITED = 2**60
"""Version 1 of control groups writes a number about as large as this where there is no limit."""


def free_bytes(device: str, *, root: Path = Path("/")) -> int | None:
    """Bytes that a process may still take; None where the system does not tell.

    On a GPU what the driver has free, and what torch has taken from it and holds unused. On Linux the least of
    MemAvailable and of what the limits of the control groups above this process leave; memory that only caches files
    counts as free in both.

    Args:
        device: "cpu", "cuda" or "mps".
        root: Root of the file system, for tests.
    """
    if device == "cuda":
        free, _ = torch.cuda.mem_get_info()
        return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    if device != "cpu":
        return None
    found = [size for size in (_available(root / "proc" / "meminfo"), *_left_by_groups(root)) if size is not None]
    return min(found, default=None)


def _available(meminfo: Path) -> int | None:
    """MemAvailable, which the file gives in kB of 1024 bytes."""
    rows = dict(line.split(":", 1) for line in _text(meminfo).splitlines() if ":" in line)
    value = rows.get("MemAvailable", "").split()
    return int(value[0]) * 1024 if value else None


def _left_by_groups(root: Path) -> Iterator[int | None]:
    """What each control group of this process leaves, from its own up to the highest."""
    base = root / "sys" / "fs" / "cgroup"
    for line in _text(root / "proc" / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from _left(base, path, limit="memory.max", used="memory.current", prefix="")
        elif "memory" in controllers.split(","):
            names = {"limit": "memory.limit_in_bytes", "used": "memory.usage_in_bytes", "prefix": "total_"}
            yield from _left(base / "memory", path, **names)


def _left(base: Path, path: str, *, limit: str, used: str, prefix: str) -> Iterator[int | None]:
    # Inside a container the path may be the host's, and only the top is to be seen.
    below = Path(path.strip("/"))
    for group in dict.fromkeys([base / below, *(base / parent for parent in below.parents), base]):
        most, taken = _number(group / limit), _number(group / used)
        if most is None or taken is None or most >= _UNLIMITED:
            continue
        statistics = dict(line.split() for line in _text(group / "memory.stat").splitlines())
        files = sum(int(statistics.get(f"{prefix}{name}_file", 0)) for name in ("active", "inactive"))
        yield max(0, most - max(0, taken - files))


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.isdigit() else None  # "max" is no limit


def _text(file: Path) -> str:
    """Empty where there is no such file, or it is not for us."""
    try:
        return file.read_text()
    except OSError:
        return ""


def resident_bytes(*, root: Path = Path("/")) -> tuple[int, int] | None:
    """What this process holds of the machine's memory, and the most it has held; None where the system does not tell.

    Args:
        root: Root of the file system, for tests.
    """
    rows = dict(line.split(":", 1) for line in _text(root / "proc" / "self" / "status").splitlines() if ":" in line)
    now, most = (rows.get(name, "").split() for name in ("VmRSS", "VmHWM"))
    return (int(now[0]) * 1024, int(most[0]) * 1024) if now and most else None

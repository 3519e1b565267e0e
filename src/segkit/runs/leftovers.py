"""What a killed process leaves behind carries its maker's name, and goes with the next start when the maker is dead.

A temporary file or folder is called `.NAME.MAKER.tmp` (`.trash` where it is on its way out), MAKER being
`PLACE-PID-NUMBER`: PLACE is eight digits of the boot and the container in which the process id means something. What
another machine or container may still be writing is left alone for a day. Names without a place are this host's.
"""

import contextlib
import hashlib
import itertools
import os
import re
import shutil
import time
from functools import cache
from pathlib import Path

_NAME = re.compile(r"\..+?\.(?:([0-9a-f]{8})-)?([0-9]+)(?:-[0-9]+)?\.(?:tmp|trash)", re.DOTALL)
_DAY_S = 24 * 3600.0
_numbers = itertools.count()


@cache
def place() -> str:
    """Where process ids are unique: eight hexadecimal digits of this boot and this process-id namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    facts = [boot.read_text().strip() if boot.exists() else os.uname().nodename]
    with contextlib.suppress(OSError):
        facts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]


def maker() -> str:
    """`PLACE-PID-NUMBER`: another one at each call."""
    return f"{place()}-{os.getpid()}-{next(_numbers)}"


def temporary_beside(path: Path, *, suffix: str = ".tmp") -> Path:
    """A name beside `path` that tells who makes it: `.tmp` on the way in, `.trash` on the way out."""
    return path.with_name(f".{path.name}.{maker()}{suffix}")


def abandoned(path: Path) -> bool:
    """Whether the maker of a temporary file is dead; False for files that are none, and where that is unknown."""
    found = _NAME.fullmatch(path.name)
    if found is None:
        return False
    where, pid = found[1], int(found[2])
    if where is not None and where != place():
        with contextlib.suppress(OSError):
            return time.time() - path.lstat().st_mtime > _DAY_S
        return False
    return not _alive(pid)


def sweep_abandoned(folder: Path) -> None:
    """Remove the temporary files of dead processes from `folder` and the folders below it."""
    if not folder.is_dir():
        return
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent) / name
            if abandoned(path):
                discard(path)
        folders[:] = [name for name in folders if not name.startswith(".")]


def discard(path: Path) -> None:
    """Remove a temporary file or folder; a link is not followed, and another process may do the same at once."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True

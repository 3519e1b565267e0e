"""One process a run folder, by `fcntl.lockf`.

The kernel lets go when the holder dies, whatever killed it; children do not inherit the lock, so an orphaned
loader worker cannot keep a dead run's folder (with `flock` it does). The file's content is only for people: host,
pid, boot and start of the holder.

A POSIX lock belongs to the process and is lost when the process closes *any* descriptor of the file. Nothing
here therefore opens a lock file that this process holds: `_held` knows them.
"""

import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from segkit.errors import RunInUseError, StorageError

_logger = logging.getLogger(__name__)
_held: dict[Path, "Holder"] = {}
_guard = threading.Lock()
_ATTEMPTS, _NAME_ATTEMPTS, _PAUSE_S = 4, 50, 0.02


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    Args:
        host: Host name.
        pid: Process id on that host.
        boot_id: Identity of the host's present boot; another one means that the pid says nothing.
        started: When the lock was taken, ISO 8601 with zone.
    """

    host: str
    pid: int
    boot_id: str
    started: str

    @classmethod
    def me(cls) -> "Holder":
        """The present process."""
        return cls(socket.gethostname(), os.getpid(), _boot_id(), datetime.now().astimezone().isoformat("T", "seconds"))

    def __str__(self) -> str:
        """Host, pid and start in one line."""
        return f"process {self.pid} on {self.host} since {self.started}"


@contextmanager
def lock(path: Path) -> Iterator[Holder]:
    """Hold the lock file `path` for the length of a `with` block.

    Raises:
        RunInUseError: Another process, or another block of this one, holds it. Raised at once.
        StorageError: The file system knows no locks.
    """
    path = path.resolve()
    with _guard:
        if (mine := _mine(path)) is not None:
            raise _in_use(path, mine)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _take(descriptor, path)
            before = _read(descriptor)
            me = Holder.me()
            _write(descriptor, json.dumps(asdict(me)))
        except BaseException:
            os.close(descriptor)
            raise
        _held[path] = me
    if before is not None:
        _logger.warning("The run was left without an end by %s; going on with it.", before)
    try:
        yield me
    finally:
        with _guard:
            _held.pop(path, None)
            # Emptied, not removed: a file that disappears lets two processes hold locks of the same name.
            os.ftruncate(descriptor, 0)
            os.close(descriptor)


def holder(path: Path) -> Holder | None:
    """Who holds the lock file `path` now, or None. Opens no file that this process holds.

    A holder that has not yet written its name is reported with pid 0.
    """
    path = path.resolve()
    with _guard:
        if (mine := _mine(path)) is not None:
            return mine
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return None
        except PermissionError:
            return _parse(path.read_bytes()[:4096])
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return _named(descriptor) or Holder("?", 0, "", "?")
        else:
            return None
        finally:
            os.close(descriptor)


def _mine(path: Path) -> Holder | None:
    """This process' own hold; a forked child has the entry but not the lock."""
    mine = _held.get(path)
    return mine if mine is not None and mine.pid == os.getpid() else None


def _take(descriptor: int, path: Path) -> None:
    try:
        # `holder` of another process takes the lock for microseconds: that is no holder, so ask more than once.
        for attempt in range(_ATTEMPTS):
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except (BlockingIOError, PermissionError) as error:  # POSIX lets a system answer EAGAIN or EACCES
                if attempt == _ATTEMPTS - 1:
                    raise _in_use(path, _named(descriptor)) from error
                time.sleep(_PAUSE_S)
    except OSError as error:
        raise StorageError(
            "The folder of the run lies on a drive without file locks.",
            where=str(path.parent),
            why=str(error),
            mend="paths.runs=<a folder on a local drive>",
        ) from error


def _named(descriptor: int) -> Holder | None:
    """The holder of a lock that is held, by the file's content.

    Who has just taken it has not written its name yet: there is none, or that of a dead one, whose lock it took.
    """
    for _ in range(_NAME_ATTEMPTS):
        found = _read(descriptor)
        if found is not None and not _dead(found):
            break
        time.sleep(_PAUSE_S)
    return found


def _dead(who: Holder) -> bool:
    """Whether a holder is known to live no more: this host was started anew since, or has no such process."""
    if who.host != socket.gethostname() or who.pid <= 0:
        return False
    if who.boot_id != _boot_id():
        return True
    try:
        os.kill(who.pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def _in_use(path: Path, who: Holder | None) -> RunInUseError:
    return RunInUseError(
        "The run is in use.",
        where=str(path.parent),
        why=f"held by {who}" if who is not None else "held by a process that is just starting",
        mend="wait for it, stop it, or give another run_name",
    )


def _write(descriptor: int, text: str) -> None:
    data = text.encode()
    os.pwrite(descriptor, data, 0)
    os.ftruncate(descriptor, len(data))
    os.fsync(descriptor)


def _read(descriptor: int) -> Holder | None:
    return _parse(os.pread(descriptor, 4096, 0))


def _parse(content: bytes) -> Holder | None:
    try:
        return Holder(**json.loads(content))
    except (ValueError, TypeError):  # empty, half-written or not ours: the content is for people, the lock decides
        return None


def _boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""

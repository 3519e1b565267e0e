"""Errors that say what, where, why and what mends it, and the exit codes they carry.

Every error that a user can cause is a `SegkitError`. Its message has four parts:

    what   the fault in one sentence
    where  case, file or configuration key
    why    the cause, with the values that were found
    mend   the line that puts it right

Exit codes follow sysexits.h where it has one: 0 done, 1 a bug or a training that failed by itself (it diverged, it ran
out of memory), 2 usage or configuration, 65 bad data, 73 the run is in use, 74 disk or I/O, 75 preempted (run the same
command again), 130 Ctrl-C.
"""

import errno
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every verb."""

    DONE = 0
    BUG = 1
    USAGE = 2
    DATA = 65
    IN_USE = 73
    IO = 74
    PREEMPTED = 75
    INTERRUPTED = 130


class SegkitError(Exception):
    """A fault that the user can mend; carries its exit code.

    Args:
        what: The fault in one sentence.
        where: Case, file or configuration key; left out where there is none.
        why: The cause, with the values that were found.
        mend: The line that puts it right.
    """

    exit_code: ExitCode = ExitCode.BUG

    def __init__(self, what: str, *, where: str = "", why: str = "", mend: str = "") -> None:
        self.what, self.where, self.why, self.mend = what, where, why, mend
        lines = [what]
        lines += [f"  {name}: {text}" for name, text in (("where", where), ("why", why), ("mend", mend)) if text]
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the four parts, so that an error crosses from a worker process unharmed."""
        return (_rebuild, (type(self), self.what, self.where, self.why, self.mend))


def _rebuild(kind: type[SegkitError], what: str, where: str, why: str, mend: str) -> SegkitError:
    return kind(what, where=where, why=why, mend=mend)


class UsageError(SegkitError):
    """A wrong command line or configuration."""

    exit_code = ExitCode.USAGE


class DataError(SegkitError):
    """Images, labels or tables that cannot be used as they are."""

    exit_code = ExitCode.DATA


class RunInUseError(SegkitError):
    """Another process holds the run folder."""

    exit_code = ExitCode.IN_USE


class StorageError(SegkitError):
    """The disk is full, read-only or failing, or a file that segkit wrote is damaged."""

    exit_code = ExitCode.IO


class Diverged(SegkitError):
    """A training failed by itself: loss, gradients or weights are not finite."""

    exit_code = ExitCode.BUG  # 1: the general failure; told from a bug by what is printed


class OutOfMemory(SegkitError):
    """A training needs more memory than the device or the machine has."""

    exit_code = ExitCode.BUG


class Preempted(SegkitError):
    """The run was asked to stop and can be continued by the same command."""

    exit_code = ExitCode.PREEMPTED


_STORAGE_ERRNOS = frozenset({errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EFBIG})


def exit_code(error: BaseException) -> ExitCode:
    """Map any exception to the exit code of the process."""
    if isinstance(error, SegkitError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    if isinstance(error, OSError) and error.errno in _STORAGE_ERRNOS:
        return ExitCode.IO
    return ExitCode.BUG

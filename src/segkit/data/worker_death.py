"""In words: a loader worker that died, or that gave nothing for too long."""

import signal
from collections.abc import Mapping

from segkit.data.shared_memory import SHM_ADVICE
from segkit.errors import DataError

_CAUSES: Mapping[int, tuple[str, str]] = {
    signal.SIGKILL: (
        "by this signal a system that runs out of memory ends a process (the kernel's log tells), or a person did",
        "fewer data.workers, or more memory",
    ),
    signal.SIGSEGV: (
        "compiled code read memory that is not its own",
        "run the same command again: damaged entries are made anew; if it comes back, set data.workers=0 and look",
    ),
    signal.SIGBUS: (
        "a mapped file shrank or its drive failed while it was read, or shared memory ran out",
        f"look after the drive and run the same command again; in a container {SHM_ADVICE}",
    ),
}
_RERUN = "run the same command again: it goes on from the last checkpoint"


def died(places: Mapping[int, str], exit_codes: Mapping[int, int | None]) -> DataError:
    """Of workers that are dead.

    Args:
        places: What each was at, by the worker's number.
        exit_codes: As `multiprocessing` gives them: -9 for SIGKILL; None where it is not known.
    """
    first = next(iter(places))
    code = exit_codes.get(first)
    cause, mend = _CAUSES.get(-code, ("", _RERUN)) if code is not None and code < 0 else ("", _RERUN)
    how = _how(code)
    return DataError(f"a loader worker {how}", where=_where(places), why=f"{cause or how}", mend=mend)


def hung(places: Mapping[int, str], *, seconds: float) -> DataError:
    """Of workers that gave no batch in time."""
    return DataError(
        f"a loader worker gave no batch for {seconds:g} s",
        where=_where(places),
        why=f"data.timeout_s={seconds:g}, and it was still at this",
        mend="see whether the file can be read (a network drive that does not answer?); "
        "where reading is that slow, set a larger data.timeout_s",
    )


def _how(code: int | None) -> str:
    if code is None:
        return "died"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name
        return f"was killed by signal {-code}"


def _where(places: Mapping[int, str]) -> str:
    return "; ".join(f"{place}, loader worker {worker}" for worker, place in places.items())

"""A wait that ends: processes that keep this one waiting too long are killed."""

import os
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress


class Deadline:
    """Kills processes when a wait for them takes longer than it may.

    The clock is in a thread of its own, because the wait itself may have no end: a worker that is stopped, or stuck
    in a page fault on a network drive, cannot hand over the memory of a batch that it has already announced, and
    torch waits for that without a limit. Its death ends the wait.

    Time in which this process did not run (Ctrl-Z, a suspended laptop) does not count.

    Args:
        seconds: Longest wait.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.passed = False
        self._tick = min(0.5, seconds / 10)
        self._began: float | None = None
        self._closed = threading.Event()

    def start(self, pids: Sequence[int]) -> None:
        """Begin to watch; `pids` are the processes to kill."""
        threading.Thread(target=self._watch, args=(tuple(pids),), name="loader deadline", daemon=True).start()

    def close(self) -> None:
        """Watch no more."""
        self._closed.set()

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._began = None

    def _watch(self, pids: tuple[int, ...]) -> None:
        known, waited, last = None, 0.0, time.monotonic()
        while not self._closed.wait(self._tick):
            began, now = self._began, time.monotonic()
            # A process that was stopped finds much time gone at one tick: no more than two ticks count.
            if began is None or began != known:
                waited = 0.0 if began is None else min(now - began, 2 * self._tick)
            else:
                waited += min(now - last, 2 * self._tick)
            known, last = began, now
            if waited >= self.seconds:
                self.passed = True
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                return

"""Signals before and after the training proper: the run ends as soon as Python can, with nothing half-written.

Within the training `callbacks.preemption` takes the signals over, and the end waits for a checkpoint. Everywhere else
there is nothing to save: what was prepared is in the cache, what was trained in its checkpoint. The same exit code,
75, says that the same command goes on from there.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from segkit.callbacks.preemption import SIGNALS
from segkit.errors import Preempted


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block the first SIGINT, SIGTERM or SIGUSR1 raises `Preempted`, a second one ends the process at once.

    In another thread than the main one, which gets no signals, the block changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_at_once() -> None:
    """From here to the end of the block a signal ends the process by the system's default."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)


def _stop(number: int, frame: FrameType | None) -> None:
    del frame
    end_at_once()
    raise Preempted(
        "The run was asked to stop.",
        why=f"signal {signal.Signals(number).name}, while nothing was being trained",
        mend="run the same command again: it goes on from here",
    )

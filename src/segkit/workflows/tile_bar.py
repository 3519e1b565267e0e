"""How far the prediction of an image has come, on a terminal: one line that is written over."""

import sys
import time
from typing import Protocol, runtime_checkable

_EVERY_S = 0.1
_CLEAR = "\r\x1b[K"


@runtime_checkable
class Stream(Protocol):
    """What is written to."""

    def write(self, text: str, /) -> int:
        """Take a text."""

    def flush(self) -> None:
        """Show what was written."""

    def isatty(self) -> bool:
        """Whether a person looks on."""


class TileBar:
    """A share of passes; silent where nobody looks on.

    Args:
        stream: Where it is shown; standard error by default.
    """

    def __init__(self, stream: Stream | None = None) -> None:
        self._stream = stream or sys.stderr
        self._shown = self._stream.isatty()
        self._heading, self._total, self._passes, self._last = "", 1, 0, -_EVERY_S

    def begin(self, heading: str, passes: int) -> None:
        """An image of so many passes begins."""
        self._heading, self._total, self._passes = heading, max(1, passes), 0

    def step(self) -> None:
        """A pass begins."""
        now = time.monotonic()
        if self._shown and now - self._last >= _EVERY_S:
            self._last = now
            share = min(1.0, self._passes / self._total)
            bar = "#" * round(20 * share)
            self._stream.write(f"{_CLEAR}{self._heading}  [{bar:<20}] {share:4.0%}")
            self._stream.flush()
        self._passes += 1

    def clear(self) -> None:
        """Make room for a line."""
        if self._shown:
            self._stream.write(_CLEAR)
            self._stream.flush()

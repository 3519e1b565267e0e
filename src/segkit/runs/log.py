"""The run's log file: what the package logs, of all lives. It never ends a training."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class _LogFile(logging.FileHandler):
    """Says once, on standard error, that the file cannot be written, instead of a traceback for every line."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", delay=True, errors="backslashreplace")
        self._failed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; the first one opens the file."""
        try:
            super().emit(record)
        except OSError as error:
            self._say(error)

    def handleError(self, record: logging.LogRecord) -> None:
        """Called by logging for whatever goes wrong when a line is written."""
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handleError(record)
        else:
            self._say(error)

    def close(self) -> None:
        """Close; lines that a full disk never took are lost, and that is said."""
        try:
            super().close()
        except OSError as error:
            self._say(error)

    def _say(self, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            sys.stderr.write(f"WARNING: {self.baseFilename} cannot be written, lines of the log are lost: {error}\n")


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Write what the package logs to `path` too, for the length of a `with` block; warnings go to standard error."""
    file, console = _LogFile(path), logging.StreamHandler()
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    console.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    console.setLevel(logging.WARNING)
    package = logging.getLogger("segkit")
    level = package.level
    package.setLevel(logging.INFO)
    for handler in (file, console):
        package.addHandler(handler)
    try:
        yield
    finally:
        package.setLevel(level)
        for handler in (file, console):
            package.removeHandler(handler)
            handler.close()

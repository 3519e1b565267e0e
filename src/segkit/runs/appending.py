"""A file that only grows, on a disk that may be full for a while.

What the system takes is in the file at once; what it refuses waits in memory and goes first the next time, from the
very byte where it stopped, so that no line is lost, torn or written twice. `sync` says when something still waits:
whatever counts on the file asks it first.
"""

import logging
import os
from pathlib import Path

from segkit.runs.files import STORAGE_FAULTS

_logger = logging.getLogger(__name__)


class Appender:
    """Appends to `path`; a full or failing disk holds nothing up.

    Args:
        path: The file; made when first written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._waiting = b""
        self._warned = False

    @property
    def waiting(self) -> int:
        """Bytes that the disk has not taken yet."""
        return len(self._waiting)

    def append(self, text: str) -> None:
        """Append, or keep for later with a warning where the disk is full or fails.

        Raises:
            OSError: For any other reason (permission, no such folder).
        """
        self._waiting += text.encode()
        try:
            self._flush()
        except OSError as error:
            if error.errno not in STORAGE_FAULTS:
                raise
            if not self._warned:
                _logger.warning("%s cannot be written now (%s); its lines wait in memory.", self.path, error)
            self._warned = True

    def sync(self) -> None:
        """Bring all of it to the disk.

        Raises:
            OSError: Something still waits, or the disk fails.
        """
        self._flush()
        if self.path.exists():
            with self.path.open("rb+") as file:
                os.fsync(file.fileno())

    def _flush(self) -> None:
        if not self._waiting:
            return
        with self.path.open("ab", buffering=0) as file:
            while self._waiting:
                self._waiting = self._waiting[file.write(self._waiting) :]
        if self._warned:
            _logger.warning("%s can be written again.", self.path)
        self._warned = False

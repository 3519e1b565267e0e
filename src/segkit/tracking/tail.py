"""What has been appended to a journal since the last look; reading it all each epoch would cost more and more."""

import os
from pathlib import Path

from segkit.tracking.journal import Row


class Tail:
    """Looks at the end of a file that only grows, or is replaced.

    Args:
        path: The journal; need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._file, self._offset = path, -1, 0

    def new(self) -> list[Row]:
        """Rows of the whole lines that are new; all of them again where the file was replaced, as by a cut.

        Lines that are no rows are passed over.
        """
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            facts = os.fstat(file.fileno())
            if facts.st_ino != self._file or facts.st_size < self._offset:
                self._file, self._offset = facts.st_ino, 0
            file.seek(self._offset)
            lines = file.read()
        whole = lines[: lines.rfind(b"\n") + 1]
        self._offset += len(whole)
        rows = []
        for line in whole.split(b"\n"):
            try:
                rows.append(Row.from_line(line))
            except ValueError:
                continue
        return rows

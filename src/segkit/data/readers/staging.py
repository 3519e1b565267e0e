"""Files that appear under their name whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segkit.runs.leftovers import maker


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Give a path of the same name in a temporary folder beside `path`; move what was written there into place.

    Formats of two files (`.hdr` with `.img`, `.mhd` with `.zraw`) are moved with `path` itself last, so that a
    header never points at data that is not there. After an exception nothing is left behind.
    """
    with tempfile.TemporaryDirectory(prefix=".segkit-", suffix=f".{maker()}.tmp", dir=path.parent) as folder:
        yield Path(folder) / path.name
        for part in sorted(Path(folder).iterdir(), key=lambda part: part.name == path.name):
            with part.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(part, path.parent / part.name)

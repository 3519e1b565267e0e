"""Which pictures go into a document that must stay small enough to be sent: the first ones, while there is room."""

import re
from collections.abc import Iterable
from pathlib import Path

from segkit.reporting.html import paragraph, picture

MOST_PICTURES, MOST_BYTES = 20, 8_000_000
_RANK = re.compile(r"\d+-")


class Pictures:
    """Room for pictures, given to whoever asks first.

    Args:
        root: Folder below which their names are told.
        most: Pictures.
        most_bytes: Bytes of all of them; in the document they take four thirds of that.
    """

    def __init__(self, root: Path, *, most: int = MOST_PICTURES, most_bytes: int = MOST_BYTES) -> None:
        self._root, self._left, self._bytes_left = root, most, most_bytes
        self.left_out = 0

    def show(self, path: Path, *, caption: str = "") -> str:
        """A picture, under its name where it has no other caption; nothing where there is no room for it."""
        size = path.stat().st_size
        if self._left == 0 or size > self._bytes_left:
            self.left_out += 1
            return ""
        self._left, self._bytes_left = self._left - 1, self._bytes_left - size
        return picture(path.read_bytes(), caption=caption or path.relative_to(self._root).as_posix())

    def note(self) -> str:
        """What was left out, if anything."""
        folder = "in the overlays folders beside this file"
        return paragraph(f"{self.left_out} more pictures lie {folder}.", kind="note") if self.left_out else ""


def drawn_cases(folders: Iterable[Path]) -> dict[str, Path]:
    """Case id to its picture, as an evaluation names them: `<rank>-<case>.png`; of two the first.

    Args:
        folders: Of overlays; those that are not there are passed over.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.png")):
            found.setdefault(_RANK.sub("", path.stem, count=1), path)
    return found

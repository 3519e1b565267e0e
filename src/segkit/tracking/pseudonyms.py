"""Names that stand for the ids of cases and people, and texts without ids, paths and the name of the machine.

The pseudonym of an id is `anon-` and the first twelve hexadecimal digits of HMAC-SHA256(key, id). The key lies beside
the runs and leaves the machine with nothing: the same id has the same pseudonym in all these runs, and who does not
have the key cannot try ids until one fits. Reference: RFC 2104.
"""

import contextlib
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from segkit.errors import StorageError
from segkit.runs.directory import RunDirectory
from segkit.runs.sweep import SweepDirectory

KEY_FILE = ".privacy.key"
_KEY_BYTES, _DIGITS = 32, 12
PATH, HOST = "<path>", "<host>"
# From a slash on to what ends a path in a sentence. What stands before it must be no word: not n/a, not the 3/4 of a
# fraction; relative paths are known by their key, see `privacy`.
_PATHS = re.compile(r"(?:<path>|(?<![\w./])(?:~|\.{1,2}|[A-Za-z]:)?)[/\\][^\s\"'`,;)\]]+")


class Pseudonyms:
    """Replaces ids, paths and hosts.

    Args:
        key: Of the hashes.
        ids: Of all cases and people that are known.
        places: Paths that are known, spaces and all.
        hosts: Names of machines.
    """

    def __init__(
        self, key: bytes, ids: Iterable[str], *, places: Iterable[str] = (), hosts: Iterable[str] = ()
    ) -> None:
        self._key, self._ids = key, frozenset(one for one in ids if one)
        self._places = sorted({place for place in places if len(place) > 1}, key=len, reverse=True)
        # A number of its own in a sentence is seldom an id, and nobody could tell: `1 of 12 cases`.
        named = [one for one in self._ids if not one.isdecimal()]
        self._words, self._hosts = _any_of(named), _any_of(hosts)

    def of(self, name: str) -> str:
        """The pseudonym of an id."""
        return f"anon-{hmac.new(self._key, name.encode(), hashlib.sha256).hexdigest()[:_DIGITS]}"

    def of_known(self, name: str) -> str | None:
        """The pseudonym of an id that is known; None for any other text."""
        return self.of(name) if name in self._ids else None

    def text(self, text: str) -> str:
        """A text of any kind without ids, paths and hosts."""
        for place in self._places:
            text = text.replace(place, PATH)
        text = _PATHS.sub(PATH, text)
        if self._hosts is not None:
            text = self._hosts.sub(HOST, text)
        return text if self._words is None else self._words.sub(lambda found: self.of(found[0]), text)


def key_beside(folder: RunDirectory | SweepDirectory) -> bytes:
    """The key of the runs beside a run or a sweep, made where there is none.

    It lies in the folder of the runs; of the jobs of a sweep, in the folder that the sweep lies in.

    Raises:
        StorageError: It is damaged: a key that is cut off could be guessed.
        OSError: It cannot be read or written.
    """
    beside = folder.path.parent
    places = (beside, beside.parent)
    for place in places:
        with contextlib.suppress(FileNotFoundError):
            return _read(place / KEY_FILE)
    in_sweep = isinstance(folder, RunDirectory) and SweepDirectory(beside).holds(folder)
    return _made(places[in_sweep] / KEY_FILE)


def _read(path: Path) -> bytes:
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise StorageError(
            "the key of the pseudonyms is damaged",
            where=str(path),
            why=f"{len(key)} bytes, not {_KEY_BYTES}",
            mend="put it back from a copy; or remove it: ids that are sent from then on have other pseudonyms",
        )
    return key


def _made(path: Path) -> bytes:
    """A new key, or that of another process that was quicker."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
        try:
            os.link(temporary, path)  # whole, and never over one that is there
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return _read(path)


def _any_of(words: Iterable[str]) -> re.Pattern[str] | None:
    """Any of the words, the longest first, where no letter or digit goes on."""
    found = sorted({word for word in words if word}, key=len, reverse=True)
    if not found:
        return None
    return re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(map(re.escape, found))})(?![A-Za-z0-9])")

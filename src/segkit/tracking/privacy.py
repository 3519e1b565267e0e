"""What of a run may reach MLflow: all of it, or, with `privacy=strict`, what names no case, no path and no machine.

Strict is a list of what may go, not of what may not: a file that is not named here stays at home, and so do all
pictures of patients. Ids of cases and people become pseudonyms, see `pseudonyms`. The run folder itself is as ever.
"""

import csv
import io
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeAlias

from segkit.errors import UsageError
from segkit.runs.directory import RunDirectory
from segkit.runs.files import read_json, read_yaml, write_json, write_yaml
from segkit.runs.sweep import SweepDirectory
from segkit.tracking.facts import Facts, load_facts
from segkit.tracking.pseudonyms import PATH, Pseudonyms, key_beside
from segkit.tracking.store import is_on_this_machine

Files: TypeAlias = list[tuple[Path, str]]

STRICT: Final = "strict"
_JSON = {
    *("plan.json", "split.json", "env.json", "summary.json", "comparison.json"),
    *("calibration.json", "postprocessing.json"),
}
_PLAIN = {"curves.png"}
_PICTURES = {"report.html"}
"""Beside the overlays: the pages hold them."""
_PLACES = ("paths", "data.root", "data.split.file", "data.groups", "resume", "tracking.uri")
"""Keys of the configuration, with all below them, whose values are places however they are spelled."""
_KEYWORDS = {"null", "auto", "never", "must"}
_DROPPED = {"content_hash", "content_hashes", "label_hashes", "host", "command", "pid", "overrides"}
"""Fields that stay at home: who has an image could find it by its hash."""
_IDS = ("case_id", "group")
"""Columns of the tables that hold ids."""


class Privacy:
    """Lets everything through; pictures of patients only to a store on this machine, or on request.

    Args:
        pictures: Whether pictures may go.
    """

    def __init__(self, *, pictures: bool = True) -> None:
        self._pictures = pictures

    def facts(self, facts: Facts) -> Facts:
        """What MLflow is told beside the files."""
        return facts

    def text(self, text: str) -> str:
        """A name or a note."""
        return text

    def reason(self, text: str) -> str:
        """Why something happened, in words that may come from anywhere; "" where they stay at home."""
        return text

    def override(self, text: str) -> str:
        """A word `key=value` of a command line."""
        return text

    @contextmanager
    def files(self, files: Sequence[tuple[Path, str]]) -> Iterator[Files]:
        """The files that may go, as they may go, with their names there; copies are gone afterwards."""
        yield [(path, name) for path, name in files if self._pictures or not _is_picture(name)]


class StrictPrivacy(Privacy):
    """See the head of this file.

    Args:
        folder: Of the run, or of the sweep.
        runs: The run, or those of the sweep.
    """

    def __init__(self, folder: RunDirectory | SweepDirectory, runs: Sequence[RunDirectory]) -> None:
        super().__init__(pictures=False)
        self._folder, self._runs, self._key = folder, runs, key_beside(folder)

    def facts(self, facts: Facts) -> Facts:
        """Params without places, tags without words from elsewhere, data without where it lies."""
        names = self._names()

        def settings(of: Mapping[str, str]) -> dict[str, str]:
            return {key: _setting(key, value, names) for key, value in of.items() if key not in _DROPPED}

        return replace(
            facts,
            params=settings(facts.params),
            drift=settings(facts.drift),
            tags={key: names.text(value) for key, value in facts.tags.items() if key not in _DROPPED},
            data=tuple(replace(one, name=names.text(one.name), source=PATH) for one in facts.data),
        )

    def text(self, text: str) -> str:
        """Without ids, paths and hosts."""
        return self._names().text(text)

    def reason(self, text: str) -> str:  # noqa: ARG002
        """Nothing: an error quotes file and case."""
        return ""

    def override(self, text: str) -> str:
        """Without a place."""
        key, equals, value = text.partition("=")
        return f"{key}{equals}{_setting(key, value, self._names())}"

    @contextmanager
    def files(self, files: Sequence[tuple[Path, str]]) -> Iterator[Files]:
        """Copies of the files that may go."""
        names = self._names()
        with tempfile.TemporaryDirectory(prefix="segkit-") as folder:
            found: Files = []
            for path, name in files:
                copy = Path(folder) / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                if _write_copy(path, copy, PurePosixPath(name), names):
                    found.append((copy, name))
            yield found

    def _names(self) -> Pseudonyms:
        """By what is in the folders now: roles and tables come while the run goes on."""
        ids, places, hosts = set[str](), {str(self._folder.path), str(Path.home())}, {socket.gethostname()}
        for run in self._runs:
            facts = load_facts(run)
            places |= {str(run.path), *(one.source for one in facts.data)}
            places |= {value for key, value in facts.params.items() if _is_place(key) and "/" in value}
            hosts |= {str(_stored(run.env).get("host", ""))}
            ids |= _ids_in(_stored(run.split)) | set(_cells(run.per_case))
        for folder in {self._folder.path, *(run.path for run in self._runs)}:
            ids |= {cell for table in folder.glob("evaluation/**/per_case.csv") for cell in _cells(table)}
        return Pseudonyms(self._key, ids, places=places, hosts=hosts)


def privacy_of(folder: RunDirectory | SweepDirectory, uri: str) -> Privacy:
    """What of a run, or of a sweep, may reach a store: strict where its configuration, or that of one of its runs, is.

    Args:
        folder: Of the run or the sweep.
        uri: Tracking URI.

    Raises:
        StorageError: The key of the pseudonyms is damaged.
        OSError: It cannot be read or written.
    """
    runs = [folder] if isinstance(folder, RunDirectory) else list(folder.runs)
    configs = [_config(run) for run in runs]
    if any(
        STRICT in (config.get("privacy"), load_facts(run).params.get("privacy"))
        for run, config in zip(runs, configs, strict=True)
    ):
        return StrictPrivacy(folder, runs)
    asked = all((config.get("tracking") or {}).get("pictures") == "always" for config in configs)
    return Privacy(pictures=asked or is_on_this_machine(uri))


def _config(run: RunDirectory) -> Mapping[str, Any]:
    try:
        return run.load_config()
    except UsageError:
        return {}


def _is_picture(name: str) -> bool:
    path = PurePosixPath(name)
    return "overlays" in path.parts or path.name in _PICTURES


def _write_copy(path: Path, copy: Path, name: PurePosixPath, names: Pseudonyms) -> bool:
    """Write what of a file may go; False where nothing may, or it cannot be understood."""
    if "nnunet" in name.parts:  # a path in every line
        return False
    try:
        if name.name == "config.yaml":
            write_yaml(copy, _settings(read_yaml(path), "", names))
        elif name.name in _JSON:
            write_json(copy, _cleared(read_json(path), names))
        elif name.suffix == ".csv":
            copy.write_text(_table(path, names), encoding="utf-8")
        elif name.name in _PLAIN:
            copy.write_bytes(path.read_bytes())
        else:
            return False
    except ValueError:
        return False
    return True


def _is_place(key: str) -> bool:
    return any(key == place or key.startswith(place + ".") for place in _PLACES)


def _setting(key: str, value: str, names: Pseudonyms) -> str:
    """A value of the configuration as text: a place, or anything that may be one, is left out."""
    is_place = _is_place(key) and value not in _KEYWORDS and not value.startswith("regex:")
    looks_so = "/" in value or "\\" in value or value.startswith("~")
    return PATH if is_place or looks_so else names.text(value)


def _settings(value: Any, key: str, names: Pseudonyms) -> Any:  # noqa: ANN401  what YAML holds
    """A configuration without places."""
    if isinstance(value, Mapping):
        below = f"{key}." if key else ""
        return {name: _settings(of, f"{below}{name}", names) for name, of in value.items() if name not in _DROPPED}
    if isinstance(value, list):
        return [_settings(one, key, names) for one in value]
    return _setting(key, value, names) if isinstance(value, str) else value


def _cleared(value: Any, names: Pseudonyms) -> Any:  # noqa: ANN401  what JSON holds
    """A record with pseudonyms in place of ids, as keys and as values, and without hashes, paths and hosts."""
    if isinstance(value, Mapping):
        kept = ((key, of) for key, of in value.items() if key not in _DROPPED)
        return {names.of_known(key) or names.text(key): _cleared(of, names) for key, of in kept}
    if isinstance(value, list):
        return [_cleared(one, names) for one in value]
    if not isinstance(value, str):
        return value
    return PATH if value.startswith(("/", "~")) else names.of_known(value) or names.text(value)


def _table(path: Path, names: Pseudonyms) -> str:
    """A table whose ids are pseudonyms, whatever they are called."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {column: names.of(cell) if column in _IDS and cell else names.text(cell) for column, cell in row.items()}
        )
    return text.getvalue()


def _cells(table: Path) -> Iterator[str]:
    """The ids in a table; none where there is no table."""
    if table.is_file() and not table.is_symlink():
        with table.open(newline="", encoding="utf-8", errors="replace") as file:
            for row in csv.DictReader(file):
                yield from (row[column] for column in _IDS if row.get(column))


def _ids_in(split: Mapping[str, Any]) -> set[str]:
    """The cases that a split names."""
    listed = {str(one) for value in split.values() if isinstance(value, list) for one in value}
    return listed.union(*(map(str, value) for value in split.values() if isinstance(value, Mapping)))


def _stored(path: Path) -> Mapping[str, Any]:
    try:
        return read_json(path)
    except (OSError, ValueError):
        return {}

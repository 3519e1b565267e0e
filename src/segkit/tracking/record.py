"""Which MLflow run is the copy of a run, and what has arrived there: mlflow.json.

The store used last stands at the top of the file, others that the run was once copied to under `elsewhere`, so that
coming back to one of them finds the same MLflow run again.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from segkit.errors import RunInUseError
from segkit.runs.files import read_json, write_json
from segkit.runs.lock import Holder, lock

_PAUSE_S = 0.1


@dataclass
class Record:
    """The copy in one store.

    Args:
        uri: Tracking URI.
        run_id: MLflow's id of the copy; empty before it is made.
        experiment_id: MLflow's id of the experiment.
        models: LoggedModel of each checkpoint sent, by its step.
        artifacts: sha256 of each file sent, by its name there.
        rewinds: How many of the run's rewinds the copy takes into account.
        superseded: Earlier MLflow runs of this run, given up at a rewind.
        complete: Fingerprint of the run folder when everything had arrived.
    """

    uri: str
    run_id: str = ""
    experiment_id: str = ""
    models: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    rewinds: int = 0
    superseded: list[str] = field(default_factory=list)
    complete: str = ""

    @classmethod
    def load(cls, path: Path, uri: str) -> "Record":
        """The record of the copy in the store `uri`; an empty one where there is none."""
        top, elsewhere = _read(path)
        return _parse(top if top.get("uri") == uri else elsewhere.get(uri, {}), uri)

    def save(self, path: Path) -> None:
        """Write it to the top of the file; another store's record moves below."""
        top, elsewhere = _read(path)
        if top.get("uri") not in {None, self.uri}:
            elsewhere[str(top["uri"])] = top
        elsewhere.pop(self.uri, None)
        write_json(path, {**asdict(self), **({"elsewhere": elsewhere} if elsewhere else {})})


@contextmanager
def keep_alone(folder: Path, *, wait_s: float = 0.0) -> Iterator[Holder]:
    """Be the only one who writes to the copies of the run, or of the sweep, in `folder`.

    Another lock than the run's own: whoever brings a copy up to date must not keep the run from being trained.

    Args:
        folder: Of the run or the sweep.
        wait_s: How long another one is waited for, s: jobs hold their sweep's for the time of a request.

    Raises:
        RunInUseError: Another process, or another thread of this one, keeps them.
    """
    until = time.monotonic() + wait_s
    with ExitStack() as stack:
        while True:
            try:
                holder = stack.enter_context(lock(folder / "mlflow.lock"))
                break
            except RunInUseError:
                if time.monotonic() >= until:
                    raise
                time.sleep(_PAUSE_S)
        yield holder


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        top = read_json(path)
    except (OSError, ValueError):
        return {}, {}
    elsewhere = top.pop("elsewhere", None)
    return top, dict(elsewhere) if isinstance(elsewhere, dict) else {}


def _parse(stored: object, uri: str) -> Record:
    if not isinstance(stored, dict):
        return Record(uri)
    known = {one.name: type(getattr(Record(uri), one.name)) for one in fields(Record)}
    return Record(**{name: stored[name] for name in known if isinstance(stored.get(name), known[name])} | {"uri": uri})

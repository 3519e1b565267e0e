"""Whose checkpoints these are, and what was decided when the run began.

`run.json` in the folder of checkpoints holds an id that is drawn once a run and stands in each manifest, so that
the checkpoint of another run is recognised however whole it is; and a second copy of what a run keeps for life but
no key says (plan, roles), so that a plan.json from elsewhere is recognised too. It goes with the folder when that is
moved. Runs and checkpoints from before there was an id have none and are taken as they are.
"""

import hashlib
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segkit.errors import UsageError
from segkit.runs.compatibility import differences
from segkit.runs.files import read_json, write_json

RECORD = "run.json"
_NAMED = 8


def identity(root: Path) -> str | None:
    """The id of the run whose checkpoints lie in `root`; None where there is none that can be read."""
    run = _read(root).get("run")
    return run if isinstance(run, str) else None


def claim(root: Path, run: str | None = None) -> str:
    """Give the folder of checkpoints an id where it has none.

    Args:
        root: Folder of the checkpoints.
        run: The id to give; drawn where none is known.

    Returns:
        The id that holds.
    """
    record = _read(root)
    if not isinstance(record.get("run"), str):
        record["run"] = run or secrets.token_hex(16)
        _write(root, record)
    return str(record["run"])


def hold_to_decisions(root: Path, decisions: Mapping[str, Any], *, run_name: str) -> None:
    """Refuse to go on with other decisions than the run began with; the first ones are written down.

    Args:
        root: Folder of the checkpoints.
        decisions: Plain values: the plan, the role of each case.
        run_name: For the message.

    Raises:
        UsageError: They are others; names them with both values.
    """
    record = _read(root)
    plain = json.loads(json.dumps(decisions))
    if "decisions" not in record:
        _write(root, {**record, "decisions": plain})
        return
    changed = [f"{key}: {old!r} -> {new!r}" for key, old, new in differences(record["decisions"], plain)]
    if changed:
        more = f"; and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        raise UsageError(
            "plan.json or split.json is not what the run began with.",
            where=f"run_name={run_name}",
            why="; ".join(changed[:_NAMED]) + more,
            mend="put the two files back as they were, or give another run_name to start a run of its own",
        )


def _read(root: Path) -> dict[str, Any]:
    """The record; empty where there is none, or where its checksum says that it is damaged."""
    path = root / RECORD
    if not path.is_file():
        return {}
    try:
        record = read_json(path)
    except ValueError:
        return {}
    return record if record.pop("checksum", None) == _checksum(record) else {}


def _write(root: Path, record: Mapping[str, Any]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    write_json(root / RECORD, {**record, "checksum": _checksum(record)})


def _checksum(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

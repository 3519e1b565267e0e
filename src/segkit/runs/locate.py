"""Names of runs, and the way from what a user typed to a run folder."""

import difflib
import os
import re
from datetime import datetime
from pathlib import Path, PurePosixPath

from segkit.errors import UsageError
from segkit.runs.directory import RunDirectory


def default_name(dataset: str, experiment: str | None, when: datetime) -> str:
    """`<dataset>-<experiment>-<YYYYMMDD-HHMMSS>`, in characters that every file system and shell takes.

    Args:
        dataset: Name of the data set.
        experiment: Name of the recipe; left out where there is none.
        when: Drawn once a run and passed on, never read again.
    """
    words = [_plain(word) for word in (dataset, experiment) if word]
    return "-".join([*[word for word in words if word], when.strftime("%Y%m%d-%H%M%S")])


def run_folder(root: Path, name: str) -> Path:
    """Where the run `name` lies below `root`; a sweep's jobs have a name of several parts.

    Raises:
        UsageError: The name leads out of `root`, or no file system takes it.
    """
    if fault := name_fault(name):
        raise UsageError(
            "That cannot be the name of a run.",
            where=f"run_name={name[:80]!r}",
            why=f"{fault}; a run lies below {root}",
            mend="run_name=<letters, digits, '.', '-' and '_'>, and paths.runs=<where runs are>",
        )
    return root / name


def name_fault(name: str) -> str:
    """Why `name` cannot be the name of a run; "" where it can."""
    parts = PurePosixPath(name).parts
    faults = {
        "it is empty": not parts or not name.strip(),
        "it is absolute": name.startswith(("/", "~")),
        "it holds '..'": ".." in parts,
        "it holds a backslash or a control character": "\\" in name or not name.isprintable(),
        "a part of it has more than 255 bytes": any(len(os.fsencode(part)) > 255 for part in parts),
    }
    return next((why for why, holds in faults.items() if holds), "")


def open_run(run: str | Path, *, root: Path | None = None) -> RunDirectory:
    """The run that `run` names: a folder, or a name below `root`.

    Raises:
        UsageError: There is no such run; names the nearest ones.
    """
    given = Path(run).expanduser()
    candidates = [given] if root is None or given.is_absolute() else [given, Path(root) / given]
    for candidate in candidates:
        directory = RunDirectory(candidate)
        if directory.exists:
            return directory
    known = sorted(path.parent.name for path in (root or given.parent).glob("*/config.yaml"))
    near = difflib.get_close_matches(given.name, known, n=3) or known[-3:]
    raise UsageError(
        "There is no run of that name.",
        where=f"run={run}",
        why=f"no config.yaml in {' or '.join(str(c.absolute()) for c in candidates)}",
        mend=f"did you mean {', '.join(near)}?" if near else "name the folder that `train` printed: run=<folder>",
    )


def _plain(word: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "-", word).strip("-.")

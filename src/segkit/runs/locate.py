"""Names of runs, and the way from what a user typed to a run folder."""

import difflib
import re
from datetime import datetime
from pathlib import Path

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

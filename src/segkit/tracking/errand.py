"""A copy brought up to date by the way, by a verb that has written something new: some seconds are waited, no longer.

MLflow may take minutes to find out that a store does not answer, so it does that in a thread of its own, in which it is
also imported (it takes seconds). The folder has everything, so nothing is lost: `segkit sync` makes up for it.
"""

import importlib
import logging
import threading
from pathlib import Path

from segkit.errors import SegkitError
from segkit.runs.directory import RunDirectory
from segkit.runs.sweep import SweepDirectory
from segkit.tracking.brief import BriefRequests

_logger = logging.getLogger(__name__)


def mirror_within(seconds: float, folder: RunDirectory | SweepDirectory, *, store: str | Path, experiment: str) -> bool:
    """Make the copy equal to the folder; never raises, and tells what is missing with the line that mends it.

    Args:
        seconds: Longest wait.
        folder: Of the run, which nobody trains, or of the sweep.
        store: Path of the sqlite file, or a server's address.
        experiment: MLflow's experiment.

    Returns:
        Whether the copy is complete.
    """
    why: list[str] = []

    def work() -> None:
        try:
            mirror = importlib.import_module("segkit.tracking.mirror").mirror
            mirror(folder, store=store, experiment=experiment)
            why.append("")
        except Exception as error:  # whatever it is, the verb has done its work: the copy can be made again
            why.append(str(error) if isinstance(error, SegkitError) else f"{type(error).__name__}: {error}")

    brief = BriefRequests()
    thread = threading.Thread(target=work, name="segkit-mlflow", daemon=True)
    thread.start()
    thread.join(seconds)
    if not thread.is_alive():  # else its last requests would wait for minutes
        brief.end()
    told = why[0] if why else f"it has not answered within {seconds:g} s"
    if told:
        line = f"python -m segkit.sync run={folder.path}"
        _logger.warning(
            "MLflow's copy of %s is not complete; the folder is. To bring it up to date: %s\n%s",
            folder.name,
            line,
            told,
        )
    return not told

"""How many epochs a run has in all: the configured number, and what was asked for on top.

`extra_epochs=50` is a request, recorded with the epoch at which it was made: the same command, run again after an
interruption, goes on towards the same end; run again after that end, it asks once more.
"""

from pathlib import Path

from segkit.errors import StorageError
from segkit.runs.files import read_json, write_json


def horizon(path: Path, *, max_epochs: int, extra_epochs: int, epochs_done: int) -> int:
    """The epoch at which the run ends; records a new request.

    Args:
        path: Where requests are kept, `horizon.json` of the run folder.
        max_epochs: Configured number of epochs, absolute.
        extra_epochs: Epochs asked for on top; 0 for none.
        epochs_done: Epochs behind the run.

    Returns:
        Number of epochs, absolute; never fewer than an earlier request reached for.
    """
    requests = _requests(path)
    reached = max([max_epochs, *(request["until"] for request in requests)])
    if extra_epochs == 0:
        return reached
    pending = [r for r in requests if r["until"] > epochs_done and r["extra_epochs"] == extra_epochs]
    if pending:
        return reached
    # Asked for within the configured epochs the extra ones follow them; asked for later they follow what is done.
    until = max(epochs_done, max_epochs) + extra_epochs
    write_json(path, {"requests": [*requests, {"extra_epochs": extra_epochs, "at": epochs_done, "until": until}]})
    return max(reached, until)


def _requests(path: Path) -> list[dict[str, int]]:
    if not path.is_file():
        return []
    try:
        return [{key: int(one[key]) for key in ("extra_epochs", "at", "until")} for one in read_json(path)["requests"]]
    except (OSError, ValueError, LookupError, TypeError, OverflowError) as error:
        mend = "remove the file: only extra_epochs that were asked for and not yet trained are forgotten"
        raise StorageError("A file of the run is damaged.", where=str(path), why=repr(error), mend=mend) from error

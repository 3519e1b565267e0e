"""Which post-processing the masks of a run get, or those of the mean of several."""

import logging
from collections.abc import Sequence
from pathlib import Path

from segkit.errors import UsageError
from segkit.evaluation.native import Average
from segkit.runs.model_identity import Models
from segkit.runs.postprocessing import FILE, StoredPostProcessing, read_postprocessing
from segkit.types import Labels

STORED, NONE = "stored", "none"
_logger = logging.getLogger(__name__)


def postprocessing_for(
    runs: Sequence[Path],
    models: Models,
    labels: Labels,
    *,
    average: Average = "logits",
    postprocess: str | Path = STORED,
) -> StoredPostProcessing | None:
    """The rules for these masks; None where there are none.

    Rules are for masks that are predicted as those were that they were fitted on: mirrored or not, with the same tiles
    and average. Where masks are predicted otherwise, `stored` leaves the rules out and says so.

    Args:
        runs: The run folders.
        models: What decides the logits of each.
        labels: Class names.
        average: What of the models is averaged and resampled.
        postprocess: `stored`: those in the folder of the run, or of several runs in the folder that holds all of
            them, if there are any; `none`; or a file, or the folder that it lies in, which then must be there and be
            for masks that are predicted in this way.

    Raises:
        UsageError: They were fitted for other models, do not suit the labels, or are not where they were said to be;
            those of a path for masks that are predicted otherwise.
        StorageError: The file is damaged.
    """
    if postprocess == NONE:
        return None
    path = stored_path(runs) if postprocess == STORED else Path(postprocess).expanduser()
    if path is None or (postprocess == STORED and not path.exists()):
        return None
    found = read_postprocessing(path)
    found.require_models(models)
    found.rules.require_suits(labels)
    settings = found.settings(models, average)
    if settings and postprocess != STORED:
        raise UsageError(
            "the post-processing was fitted on masks that were predicted otherwise",
            where=str(path),
            why=f"with {settings}",
            mend=f"{settings}; or postprocess=none",
        )
    if settings:
        _logger.warning("post-processing is left out: it was fitted with %s, these masks are not (%s)", settings, path)
        return None
    return found


def stored_path(runs: Sequence[Path]) -> Path | None:
    """Where the rules of these runs lie by themselves; None for several runs that have no folder in common."""
    if len(runs) == 1:
        return runs[0] / FILE
    folders = {run.parent for run in runs}
    return folders.pop() / FILE if len(folders) == 1 else None

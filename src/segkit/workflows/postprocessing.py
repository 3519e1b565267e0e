"""Which post-processing the masks of a run get, or those of the mean of several."""

from collections.abc import Sequence
from pathlib import Path

from segkit.runs.model_identity import Models
from segkit.runs.postprocessing import FILE, StoredPostProcessing, read_postprocessing
from segkit.types import Labels

STORED, NONE = "stored", "none"


def postprocessing_for(
    runs: Sequence[Path], models: Models, labels: Labels, *, postprocess: str | Path = STORED
) -> StoredPostProcessing | None:
    """The rules for these masks; None where there are none.

    Args:
        runs: The run folders.
        models: What decides the logits of each.
        labels: Class names.
        postprocess: `stored`: those in the folder of the run, or of several runs in the folder that holds all of
            them, if there are any; `none`; or a file, or the folder that it lies in, which then must be there.

    Raises:
        UsageError: They were fitted for other models, do not suit the labels, or are not where they were said to be.
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
    return found


def stored_path(runs: Sequence[Path]) -> Path | None:
    """Where the rules of these runs lie by themselves; None for several runs that have no folder in common."""
    if len(runs) == 1:
        return runs[0] / FILE
    folders = {run.parent for run in runs}
    return folders.pop() / FILE if len(folders) == 1 else None

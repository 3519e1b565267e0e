"""`evaluate run=RUN`: score a run on whole images, per case and class, on the images' own voxels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segkit.workflows.evaluate_subset import Evaluated, evaluate_subset
from segkit.workflows.loading import load_from
from segkit.workflows.members import Members


def evaluate_run(config: Mapping[str, Any], run: str | Path) -> Evaluated:
    """Score the cases of one role.

    Args:
        config: Keys of configs/evaluate.yaml.
        run: The run folder.

    Returns:
        The numbers, which are also printed and written to <run>/evaluation/<subset>.

    Raises:
        UsageError: No such run, or cases asked for that the run has seen.
        DataError: Cases are missing, have no label, or have the content of cases the run has seen.
    """
    trained = load_from({**config, "mirror": False}, run)
    output = Path(config.get("output") or trained.directory.evaluation / config["subset"])
    members = Members((trained,), config.get("average", "logits"))
    return evaluate_subset(config, members, output=output.expanduser().absolute())

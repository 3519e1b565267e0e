"""`evaluate run=[A,B,C]`, `evaluate run=SWEEP subset=held_out`: the mean of several runs, as `predict` makes it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segkit.errors import UsageError
from segkit.workflows.evaluate_subset import Evaluated, evaluate_subset
from segkit.workflows.loading import load_from
from segkit.workflows.members import Members, require_alike, require_compatible


def evaluate_ensemble(config: Mapping[str, Any], runs: Sequence[str | Path]) -> Evaluated:
    """Score the mean of the runs on cases that none of them has seen.

    The cases are those that have the role `subset` in any of the runs.

    Args:
        config: Keys of configs/evaluate.yaml; `output` is given.
        runs: Run folders.

    Returns:
        The numbers, which are also printed and written to `output`.

    Raises:
        UsageError: No such run, no output, runs that do not go together, or cases asked for that a run has seen.
        DataError: Cases are missing, have no label, or a run has seen them; names run and case.
    """
    if config.get("output") is None:
        why = "the numbers are those of the ensemble, and of none of its runs"
        raise UsageError("several runs need a folder of their own", where="output", why=why, mend="output=<folder>")
    # Mirrored predictions are a further row; the first one is plain.
    members = [load_from({**config, "mirror": False}, run) for run in runs]
    require_compatible(members)
    require_alike(
        members,
        {"score": lambda run: run.settings.composite, "score.lesion": lambda run: run.settings.lesion},
        so="it is not known how to count their mean",
        mend="evaluate runs of one score together; or predict, then evaluate predictions=FOLDER",
    )
    output = Path(config["output"]).expanduser().absolute()
    return evaluate_subset(config, Members(tuple(members), config.get("average", "logits")), output=output)

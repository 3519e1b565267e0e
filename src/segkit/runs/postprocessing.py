"""postprocessing.json: the rules that were fitted for a run, or for the runs of an ensemble, read and understood."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkit.errors import StorageError, UsageError
from segkit.inference.postprocessing import PostProcessing
from segkit.runs.files import read_json
from segkit.runs.model_identity import Models, are_models, keys_that_restore, models_text, same_checkpoints

FILE = "postprocessing.json"
_EVALUATE = "python -m segkit.evaluate"
HOW_TO_FIT = (
    f"{_EVALUATE} run=RUN subset=tuning postprocess=fit; for the mean of the folds of a cross-validation "
    f"{_EVALUATE} run=<their folder> subset=test postprocess=fit"
)
"""For people, where it is not known whose rules are meant."""


@dataclass(frozen=True)
class StoredPostProcessing:
    """Rules, whose masks they are for, and the cases that chose them.

    Args:
        rules: What is done to a label map.
        models: The models they were fitted for.
        average: What of them was averaged and resampled: `logits` or `probabilities`.
        fitted: Case id by content hash of its images.
        path: The file.
    """

    rules: PostProcessing
    models: tuple[Mapping[str, Any], ...]
    average: str
    fitted: Mapping[str, str]
    path: Path

    def require_models(self, models: Models) -> None:
        """Refuse to change the masks of other models.

        Raises:
            UsageError: Other runs, or other checkpoints of them; names both.
        """
        if not same_checkpoints(self.models, models):
            raise UsageError(
                "the post-processing was fitted for other models",
                where=str(self.path),
                why=f"it is of {models_text(self.models)}; these are {models_text(models)}",
                mend=f"postprocess=none; or fit for these: {HOW_TO_FIT}",
            )

    def settings(self, models: Models, average: str) -> str:
        """The keys with which these models predict as they did for the fit; "" where they do.

        Masks that are predicted otherwise have other islands and holes: the rules are not for them.

        Args:
            models: The same runs and checkpoints, see `require_models`.
            average: What of them is averaged and resampled now.
        """
        return " ".join(
            [
                *keys_that_restore(self.models, models),
                *([f"average={self.average}"] if average != self.average else []),
            ]
        )

    def text(self, unit: str = "mm^3") -> str:
        """For people, before masks are changed: the rules and their file."""
        return f"post-processing: {self.rules.text(unit)} ({self.path})"

    def fitted_on(self, hashes: Mapping[str, str]) -> list[str]:
        """The cases among these that chose the rules, by the content of their images: no test of the rules.

        Args:
            hashes: Content hash of the images of each case.
        """
        return sorted(case_id for case_id, content in hashes.items() if content in self.fitted)


def fit_command(runs: Sequence[Path]) -> str:
    """The command that fits rules for a run, or for the mean of several that are all in one folder.

    Args:
        runs: Run folders; the several are the folds of a cross-validation.
    """
    if len(runs) == 1:
        return f"{_EVALUATE} run={runs[0]} subset=tuning postprocess=fit"
    return f"{_EVALUATE} run={runs[0].parent} subset=test postprocess=fit"


def read_postprocessing(path: Path) -> StoredPostProcessing:
    """Read the rules and whose they are.

    Args:
        path: The file, or the folder that it lies in.

    Raises:
        UsageError: There is none.
        StorageError: It is damaged.
    """
    path = path / FILE if path.is_dir() else path
    try:
        stored = read_json(path)
    except FileNotFoundError as error:
        why = "no such file"
        raise UsageError("there is no post-processing", where=str(path), why=why, mend=HOW_TO_FIT) from error
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    models, cases = stored.get("models"), stored.get("fitting_cases")
    average = stored.get("average", "logits")  # the first versions knew no other
    if not are_models(models):
        raise _damaged(path, "it does not say for which models it was fitted")
    if average not in ("logits", "probabilities"):
        raise _damaged(path, f"it averages {str(average)[:80]!r}")
    if not isinstance(cases, list) or not all(
        isinstance(one, dict) and all(isinstance(one.get(key), str) for key in ("case_id", "content_hash"))
        for one in cases
    ):
        raise _damaged(path, "it does not say which cases it was fitted on")
    try:
        rules = PostProcessing.from_json(stored.get("postprocessing"))
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    fitted = {one["content_hash"]: one["case_id"] for one in cases}
    return StoredPostProcessing(rules, tuple(models), average, fitted, path)


def _damaged(path: Path, why: str) -> StorageError:
    mend = "remove it and fit again, or postprocess=none"
    return StorageError("the post-processing cannot be understood", where=str(path), why=why, mend=mend)

"""What the training process and an evaluation apart from it tell one another: files of the run's folder `evaluations`.

step-00000006.json   the result, written by the evaluation, removed when it was applied
step-00000006.log    what the evaluation has printed; stays where it failed
queue.json           which checkpoint is at work and which waits, for `status`
cases.json           the tuning cases
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkit.runs.files import read_json, write_json
from segkit.runs.manifest import checkpoint_path

QUEUE, CASES = "queue.json", "cases.json"


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation.

    Args:
        step: Of the checkpoint.
        manifest: Digest of the manifest of the checkpoint that was read.
        score: `val/score`; None where no case has one.
        per_case: Score of each tuning case, None where it has none.
        values: `val/...` for the journal; only what is defined.
    """

    step: int
    manifest: str
    score: float | None
    per_case: Mapping[str, float | None]
    values: Mapping[str, float]

    def write(self, folder: Path) -> None:
        """Write it into the folder of evaluations, whole or not at all."""
        record = {
            "step": self.step,
            "manifest": self.manifest,
            "score": self.score,
            "per_case": dict(self.per_case),
            "values": {key: value if math.isfinite(value) else str(value) for key, value in self.values.items()},
        }
        write_json(result_of(folder, self.step), record)

    @classmethod
    def read(cls, folder: Path, step: int) -> "Evaluation":
        """The inverse of `write`.

        Raises:
            OSError: There is none, or it cannot be read.
            ValueError: It is not what `write` writes.
        """
        record = read_json(result_of(folder, step))
        try:
            found = cls(
                step=int(record["step"]),
                manifest=str(record["manifest"]),
                score=_number(record["score"]),
                per_case={str(case): _number(value) for case, value in record["per_case"].items()},
                values={str(key): float(value) for key, value in record["values"].items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not the result of an evaluation: {error!r}") from error
        if found.step != step:
            raise ValueError(f"the result of step {found.step}")
        return found


def result_of(folder: Path, step: int) -> Path:
    """File of the result of the checkpoint of `step`."""
    return folder / f"{checkpoint_path(folder, step).name}.json"


def log_of(folder: Path, step: int) -> Path:
    """File of what its evaluation has printed."""
    return folder / f"{checkpoint_path(folder, step).name}.log"


def steps_of_results(folder: Path) -> list[int]:
    """Steps that a result lies there of, ascending."""
    return sorted(int(path.stem.removeprefix("step-")) for path in folder.glob("step-[0-9]*.json"))


def _number(value: Any) -> float | None:  # noqa: ANN401  what JSON holds
    return None if value is None else float(value)
